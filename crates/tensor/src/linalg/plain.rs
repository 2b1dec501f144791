//! The plain system `S Wᵀ = Σ uᵢ G̃ᵢ Wᵢᵀ` in fp32, by the calls that published scripts make.
//!
//! For reproducing others' results: unscaled, without the average as anchor, they lose accuracy (or the model) where the
//! scaled correction does not.

use mergelab_wire::Solver;
use tch::{Device, Kind, Tensor};

use super::SolveError;
use super::symmetric::bytes;
use super::system::Term;

/// One of the published calls, prepared for blocks of rows.
#[derive(Debug)]
pub struct PlainSolver {
    solver: Solver,
    /// The Cholesky factor, the (pseudo-)inverse, or the matrix itself for `lstsq`; `[width, width]`, fp32.
    kept: Tensor,
    /// `uᵢ G̃ᵢ`, fp32.
    parts: Vec<Tensor>,
}

impl PlainSolver {
    /// Prepares the solver.
    ///
    /// # Errors
    /// When a Gram cannot be read or libtorch refuses the matrix.
    pub fn new(solver: Solver, terms: &[Term<'_>], alpha: f64, device: Device) -> Result<Self, SolveError> {
        let parts = terms
            .iter()
            .map(|term| {
                let gram = term.gram.matrix()?.f_to_device(device)?;
                let part = gram.f_mul_scalar(alpha)?;
                part.f_diagonal(0, 0, 1)?.f_copy_(&gram.f_diagonal(0, 0, 1)?)?;
                Ok(part.f_mul_scalar(term.scale)?)
            })
            .collect::<Result<Vec<_>, SolveError>>()?;
        let mut sum = parts[0].f_mul_scalar(1.0)?;
        for part in &parts[1..] {
            sum = sum.f_add_(part)?;
        }
        let refused = |reason: String| SolveError::Plain { solver: name(solver), reason: first_line(&reason) };
        let kept = match solver {
            Solver::Cholesky => {
                let (factor, info) = sum.f_linalg_cholesky_ex(false, false)?;
                let info = info.f_int64_value(&[])?;
                if info != 0 {
                    return Err(refused(format!("the leading minor of order {info} is not positive definite")));
                }
                factor
            }
            Solver::Inverse => Tensor::f_linalg_inv(&sum).map_err(|error| refused(error.to_string()))?,
            Solver::Pinv => {
                // The cut-off of `torch.linalg.pinv` when it is given none.
                let relative = sum.size()[0] as f64 * super::EPS32;
                sum.f_linalg_pinv(relative, false).map_err(|error| refused(error.to_string()))?
            }
            Solver::Lstsq | Solver::Auto => sum,
        };
        Ok(Self { solver, kept, parts })
    }

    /// Bytes of its matrices.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().chain([&self.kept]).map(bytes).sum()
    }

    /// Another handle on the same matrices, for another thread.
    pub(crate) fn share(&self) -> Self {
        let parts = self.parts.iter().map(Tensor::shallow_clone).collect();
        Self { solver: self.solver, kept: self.kept.shallow_clone(), parts }
    }

    /// The merged rows `[rows, width]`, fp32, from the models' rows `[rows, width]`.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn solve(&self, rows: &[Tensor]) -> Result<Tensor, SolveError> {
        let mut rhs: Option<Tensor> = None;
        for (part, rows) in self.parts.iter().zip(rows) {
            let product = part.f_mm(&rows.f_to_kind(Kind::Float)?.f_tr()?)?;
            rhs = Some(match rhs {
                None => product,
                Some(mut rhs) => rhs.f_add_(&product)?,
            });
        }
        let rhs = rhs.ok_or(SolveError::NotFinite)?;
        let solution = match self.solver {
            Solver::Cholesky => rhs.f_cholesky_solve(&self.kept, false)?,
            Solver::Inverse | Solver::Pinv => self.kept.f_mm(&rhs)?,
            Solver::Lstsq | Solver::Auto => {
                let driver = if self.kept.device().is_cuda() { "gels" } else { "gelsy" };
                let (solution, _, _, _) = self.kept.f_linalg_lstsq(&rhs, None, driver).map_err(|error| {
                    SolveError::Plain { solver: name(self.solver), reason: first_line(&error.to_string()) }
                })?;
                solution
            }
        };
        Ok(solution.f_tr()?.f_contiguous()?)
    }
}

fn name(solver: Solver) -> &'static str {
    match solver {
        Solver::Auto => "auto",
        Solver::Cholesky => "cholesky",
        Solver::Lstsq => "lstsq",
        Solver::Inverse => "inverse",
        Solver::Pinv => "pinv",
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
