//! Several errors reported in one go.

use std::fmt;

/// At least one error, in the order in which they were found. Displayed one a line.
#[derive(Clone, Debug, PartialEq)]
pub struct Errors<E>(Vec<E>);

impl<E> Errors<E> {
    /// `value` if nothing went wrong, else everything that did.
    ///
    /// # Errors
    /// When `found` is not empty.
    pub fn unless_any<T>(found: Vec<E>, value: T) -> Result<T, Self> {
        if found.is_empty() { Ok(value) } else { Err(Self(found)) }
    }

    /// The errors; never empty.
    pub fn as_slice(&self) -> &[E] {
        &self.0
    }

    /// The errors by value; never empty.
    pub fn into_vec(self) -> Vec<E> {
        self.0
    }
}

impl<E> From<E> for Errors<E> {
    fn from(error: E) -> Self {
        Self(vec![error])
    }
}

impl<E: fmt::Display> fmt::Display for Errors<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl<E: fmt::Display + fmt::Debug> std::error::Error for Errors<E> {}
