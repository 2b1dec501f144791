"""Random mergekit configurations of each method that draws nothing at random itself."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch

from families import DENSE, NEAR, SPARSE, TOKENS, Family

# Parts of tensor names that people filter by.
FILTERS = ("self_attn", "mlp", "norm", "embed_tokens", "lm_head", "q_proj", "down_proj", "layers.1.")

# Ends the name of methods that keep the largest elements, on models where many are of one size.
EQUALS = "-equals"


@dataclass(frozen=True)
class Case:
    """One configuration."""

    name: str
    config: dict
    """As a mergekit file has it, but for the types; models are paths from the project's root."""
    out: str
    """Type of the output."""
    stable: bool = False
    """Whether mergekit is to keep the first of elements of one size."""

    def models(self) -> list[str]:
        """Paths of all models, each once."""
        whole = self.config.get("modules", {}).get("default", self.config)
        listed = [*whole.get("models", []), *(source for part in whole.get("slices", []) for source in part["sources"])]
        found = [entry["model"] for entry in listed] + [self.config.get("base_model")]
        return [model for model in dict.fromkeys(found) if model]

    def file(self, computed: str = "float32") -> dict:
        """The whole mergekit file; `computed` is the type that mergekit computes in."""
        return {**self.config, "dtype": computed, "out_dtype": self.out}


class Draw(random.Random):
    """Draws values as people write them."""

    def chance(self, share: float) -> bool:
        return self.random() < share

    def number(self, low: float, high: float) -> float:
        return round(self.uniform(low, high), 4)

    def small(self, low: float, high: float) -> float:
        """One of many orders of magnitude, by the exponents of ten."""
        return float(f"{10 ** self.uniform(low, high):.3g}")

    def depth(self, value: Callable[[], float]) -> float | list[float]:
        """A number, or a list of them over depth."""
        return [value() for _ in range(self.randint(2, 5))] if self.chance(0.3) else value()

    def setting(self, value: Callable[[], float], *, whole: bool = True) -> object:
        """A number, a list over depth, or either by tensor name; without `whole` some tensors may be left to the default."""
        if self.chance(0.6):
            return self.depth(value)
        filtered = [{"filter": part, "value": self.depth(value)} for part in self.sample(FILTERS, self.randint(1, 3))]
        return filtered + ([{"value": self.depth(value)}] if whole or self.chance(0.5) else [])

    def sometimes(self, parameters: dict, share: float = 0.5) -> dict:
        """Each of the parameters or not; a function gives the value."""
        return {name: value() for name, value in parameters.items() if self.chance(share)}

    def family(self, families: list[Family], stored: torch.dtype | None = None) -> Family:
        """A family, of those that are stored so if that is given."""
        return self.choice([family for family in families if stored in (None, family.stored)])

    def some(self, family: Family, names: tuple[str, ...], low: int, high: int | None = None) -> list[str]:
        """Paths of some models of a family, in any order."""
        return [family.model(name) for name in self.sample(names, self.randint(low, min(high or len(names), len(names))))]

    def switch(self) -> bool:
        return self.chance(0.5)


def entries(models: list[str], parameters: Callable[[], dict]) -> list[dict]:
    """The section `models`."""
    found = []
    for model in models:
        drawn = parameters()
        found.append({"model": model} | ({"parameters": drawn} if drawn else {}))
    return found


def config(method: str, models: list[dict], base: str | None = None, parameters: dict | None = None) -> dict:
    found = {"merge_method": method, "models": models}
    if base:
        found["base_model"] = base
    if parameters:
        found["parameters"] = parameters
    return found


def with_base(draw: Draw, models: list[dict], base: str) -> list[dict]:
    """The base stands among the models in many people's files, or it does not."""
    place = draw.choice([None, None, 0, len(models)])
    return models if place is None else [*models[:place], {"model": base}, *models[place:]]


def linear(draw: Draw, families: list[Family]) -> dict:
    family = draw.family(families)
    models = draw.some(family, ("base", *DENSE), 2)

    def weight() -> float:
        return draw.number(0.1, 1.5)

    shared = draw.sometimes({"normalize": draw.switch})
    if draw.chance(0.25):
        # To this method a base is one more model.
        base = draw.choice((None, family.model("base")))
        return config("linear", entries(models, dict), base, shared | {"weight": draw.setting(weight)})
    return config("linear", entries(models, lambda: {"weight": draw.setting(weight)}), None, shared)


def slerp(draw: Draw, families: list[Family]) -> dict:
    family = draw.family(families)
    base, other = draw.some(family, ("base", *DENSE), 2, 2)
    listed = draw.choice([[other], [base, other], [other, base]])
    return config("slerp", entries(listed, dict), base, {"t": draw.setting(lambda: draw.number(0, 1))})


def nuslerp(draw: Draw, families: list[Family]) -> dict:
    family = draw.family(families)
    models = entries(draw.some(family, DENSE, 2, 2), lambda: {"weight": draw.setting(lambda: draw.number(0.1, 1.5))})
    shared = draw.choice([{}, {"nuslerp_flatten": True}, {"nuslerp_flatten": False},
                          {"nuslerp_flatten": False, "nuslerp_row_wise": True}])
    base = family.model("base") if draw.switch() else None
    return config("nuslerp", with_base(draw, models, base) if base else models, base, shared)


def multislerp(draw: Draw, families: list[Family]) -> dict:
    family = draw.family(families)
    models = entries(draw.some(family, DENSE, 2), lambda: {"weight": draw.setting(lambda: draw.number(0.1, 1.5))})
    shared = draw.sometimes({"normalize_weights": draw.switch, "eps": lambda: 1e-8})
    base = family.model("base") if draw.switch() else None
    return config("multislerp", with_base(draw, models, base) if base else models, base, shared)


def karcher(draw: Draw, families: list[Family]) -> dict:
    family = draw.family(families)
    shared = draw.sometimes({"max_iter": lambda: draw.choice((5, 10, 50)), "tol": lambda: draw.choice((1e-5, 1e-6))})
    # To this method a base is one more model.
    models, base = draw.choice(((("base", *DENSE), None), (DENSE, family.model("base"))))
    return config("karcher", entries(draw.some(family, models, 2), dict), base, shared)


def differences(method: str, *, own: Callable[[Draw], dict] | None = None, stored: torch.dtype | None = None) -> Callable:
    """The methods that add weighted differences to the base; `own` gives parameters of single models beside the weight."""

    def drawn(draw: Draw, families: list[Family]) -> dict:
        family = draw.family(families, stored)
        base = family.model("base")

        def parameters() -> dict:
            return {"weight": draw.setting(lambda: draw.number(0.1, 1.5))} | (own(draw) if own else {})

        models = entries(draw.some(family, draw.choice((DENSE, DENSE, SPARSE)), 1 if draw.chance(0.2) else 2), parameters)
        shared = draw.sometimes({
            "lambda": lambda: draw.setting(lambda: draw.number(0.3, 1.5), whole=False),
            "normalize": draw.switch,
            "rescale": draw.switch,
        })
        shared |= draw.sometimes({"int8_mask": draw.switch}, 0.2)
        if own and draw.chance(0.2):
            # A density for all models, which some of them have their own instead of.
            shared |= own(draw)
            for model in models:
                if draw.switch():
                    model["parameters"].pop("density", None)
        return config(method, with_base(draw, models, base), base, shared)

    return drawn


def density(draw: Draw) -> dict:
    return {"density": draw.setting(lambda: draw.number(0.1, 1), whole=False)}


def density_and_gamma(draw: Draw) -> dict:
    kept = draw.setting(lambda: draw.number(0.3, 0.95), whole=False)
    return {"density": kept} | draw.sometimes({"gamma": lambda: draw.setting(lambda: draw.number(0, 0.1), whole=False)}, 0.7)


def all_kept(draw: Draw) -> dict:
    return draw.sometimes({"density": lambda: 1.0})


def all_kept_and_epsilon(draw: Draw) -> dict:
    return all_kept(draw) | draw.sometimes({"epsilon": lambda: draw.number(0.01, 0.2)}, 0.3)


def model_stock(draw: Draw, families: list[Family]) -> dict:
    family = draw.family(families)
    base = family.model("base")
    models = entries(draw.some(family, draw.choice((DENSE, SPARSE)), 2), dict)
    return config("model_stock", with_base(draw, models, base), base, draw.sometimes({"filter_wise": draw.switch}, 0.7))


def sce(draw: Draw, families: list[Family]) -> dict:
    family = draw.family(families, torch.float32)
    base = family.model("base")
    models = entries(draw.some(family, draw.choice((DENSE, SPARSE)), 2), dict)
    shared = draw.sometimes({"select_topk": lambda: draw.setting(lambda: draw.number(0.1, 1), whole=False)}, 0.8)
    return config("sce", with_base(draw, models, base), base, shared)


def nearswap(draw: Draw, families: list[Family]) -> dict:
    family = draw.family(families)
    base, other = family.model("base"), family.model(draw.choice((NEAR, *DENSE)))
    listed = draw.choice([[other], [base, other], [other, base]])
    return config("nearswap", entries(listed, dict), base, {"t": draw.setting(lambda: draw.small(-5, -2))})


def ram(method: str, own: dict[str, tuple[float, float]]) -> Callable:
    def drawn(draw: Draw, families: list[Family]) -> dict:
        family = draw.family(families)
        base = family.model("base")
        models = entries(draw.some(family, draw.choice((SPARSE, SPARSE, DENSE)), 2), dict)
        shared = draw.sometimes({"epsilon": lambda: draw.setting(lambda: draw.small(-6, -2.5), whole=False)})
        shared |= draw.sometimes({name: lambda room=room: draw.setting(lambda: draw.number(*room), whole=False)
                                  for name, room in own.items()})
        return config(method, with_base(draw, models, base), base, shared)

    return drawn


def arcee_fusion(draw: Draw, families: list[Family]) -> dict:
    family = draw.family(families)
    base, other = family.model("base"), family.model(draw.choice(DENSE))
    return config("arcee_fusion", entries(draw.choice([[other], [base, other], [other, base]]), dict), base)


def passthrough(draw: Draw, families: list[Family]) -> dict:
    family = draw.family(families)
    scale = draw.sometimes({"scale": lambda: draw.setting(lambda: draw.number(-1, 2), whole=False)}, 0.8)
    return config("passthrough", entries(draw.some(family, DENSE, 1, 1), lambda: scale))


def slices(draw: Draw, families: list[Family]) -> dict:
    """One slice over all layers, the older way to name models, with parameters of the model, the slice, the module and the file;
    where the filters of one fit no tensor, the next counts."""
    family = draw.family(families)
    method = draw.choice(("linear", "slerp"))
    models = draw.some(family, ("base", *DENSE), 2, 2)
    name, (low, high) = ("weight", (0.1, 1.5)) if method == "linear" else ("t", (0, 1))

    def stated(*, whole: bool) -> dict:
        return {name: draw.setting(lambda: draw.number(low, high), whole=whole)}

    # t is no parameter of one model.
    sources = entries(models, lambda: stated(whole=False) if method == "linear" and draw.switch() else {})
    part = {"sources": [source | {"layer_range": [0, family.layers]} for source in sources]}
    if draw.switch():
        part["parameters"] = stated(whole=False)
    found = {"merge_method": method, "slices": [part], "parameters": stated(whole=True)}
    if draw.chance(0.3):
        found["modules"] = {"default": {"slices": found.pop("slices")}}
        if draw.switch():
            found["modules"]["default"]["parameters"] = stated(whole=False)
    return found | ({"base_model": models[0]} if method == "slerp" else {})


def tokenizers(draw: Draw, families: list[Family]) -> dict:
    """Models of different tokens, by the tokens of all, of the base or of one."""
    family = draw.family(families)
    method = draw.choice(("linear", "task_arithmetic"))
    base = family.model(draw.choice(("base", *TOKENS))) if method == "task_arithmetic" or draw.switch() else None
    listed = [model for model in draw.some(family, ("base", "a", *TOKENS), 2) if model != base]
    if method == "linear" and base:
        listed.append(base)
    models = entries(listed, lambda: {"weight": draw.number(0.1, 1.5)})
    found = config(method, models, base)
    # Without a base mergekit takes that of any model, as a set of them happens to be ordered.
    source = draw.choice(("union", "union", "base" if base else "union", draw.choice(listed)))
    if draw.switch():
        return found | {"tokenizer_source": source}
    rows = [
        {"source": {"kind": "zero"}},
        {"source": {"kind": "zero"}, "force": True},
        {"source": {"kind": "model_token", "model": draw.choice(listed), "token_id": draw.randint(0, 80)}, "force": True},
        {"source": {"kind": "model_token", "model": draw.choice(listed), "token": "w5"}},
    ]
    # The first is of all models, the second of some or none, the third of none. mergekit 0.1.5 ends with a KeyError where it adds
    # one to the base's tokenizer.
    named = ("w7",) if source == "base" else ("w7", "<user>", "<new>")
    tokens = {token: draw.choice(rows) for token in draw.sample(named, draw.randint(1, len(named)))}
    return found | {"tokenizer": {"source": source, "tokens": tokens} | draw.sometimes({"pad_to_multiple_of": lambda: 16})}


def stacked(draw: Draw, families: list[Family]) -> dict:
    """Slices that stack, repeat and cut layers, each source from a depth of its own, with parameters of the source, the slice and
    the file, and a base that may be another in each slice."""
    method = draw.choice(("passthrough", "passthrough", "linear", "slerp", "task_arithmetic", "ties", "karcher", "nuslerp"))
    # Of equal elements it is left open which is the largest.
    family = draw.family(families, torch.float32 if method == "ties" else None)
    low, high = {"passthrough": (1, 1), "linear": (1, 3), "karcher": (2, 3), "task_arithmetic": (1, 3), "ties": (1, 3)}.get(method, (2, 2))
    with_base = method in ("slerp", "task_arithmetic", "ties") or (method == "nuslerp" and draw.switch())
    # mergekit takes as many models for what lies behind the layers as the first slice has, and so leaves some out of a last that
    # has more.
    counts = sorted((draw.randint(low, high) for _ in range(draw.randint(1, 4))), reverse=True)
    base = family.model("base")
    per_model = {
        "passthrough": ("scale", lambda: draw.number(-1, 2)),
        "linear": ("weight", lambda: draw.number(0.1, 1.5)),
        "task_arithmetic": ("weight", lambda: draw.number(0.1, 1.5)),
        "ties": ("weight", lambda: draw.number(0.1, 1.5)),
        "nuslerp": ("weight", lambda: draw.number(0.1, 1.5)),
    }.get(method)
    shared = {
        "slerp": ("t", lambda: draw.number(0, 1)),
        "task_arithmetic": ("lambda", lambda: draw.number(0.3, 1.5)),
        "ties": ("density", lambda: draw.number(0.1, 1)),
    }.get(method)

    def stated(*parameters: tuple | None, whole: bool = False) -> dict:
        return {name: draw.setting(value, whole=whole) for name, value in filter(None, parameters)}

    def part(count: int) -> dict:
        length = draw.randint(1, family.layers)
        names = draw.some(family, DENSE, count - (method == "slerp"), count - (method == "slerp"))
        own_base = draw.choice([family.model(name) for name in DENSE if family.model(name) not in names] or [base])
        found = {}
        if with_base and own_base != base and draw.chance(0.3):
            found["base_model"] = own_base
        listed = [*names, found.get("base_model", base)] if with_base else names
        sources = []
        for model in draw.sample(listed, len(listed)):
            start = draw.randint(0, family.layers - length)
            source = {"model": model, "layer_range": [start, start + length]}
            if per_model and model in names and draw.switch():
                source["parameters"] = stated(per_model)
            sources.append(source)
        if draw.switch() and (drawn := stated(per_model, shared)):
            found["parameters"] = drawn
        return {"sources": sources} | found

    found = {"merge_method": method, "slices": [part(count) for count in counts]}
    if drawn := stated(per_model, shared, whole=True):
        found["parameters"] = drawn
    return found | ({"base_model": base} if with_base else {})


METHODS: dict[str, Callable[[Draw, list[Family]], dict]] = {
    "linear": linear,
    "slerp": slerp,
    "nuslerp": nuslerp,
    "multislerp": multislerp,
    "karcher": karcher,
    "task_arithmetic": differences("task_arithmetic"),
    "ties": differences("ties", own=density, stored=torch.float32),
    "dare_linear": differences("dare_linear", own=all_kept),
    "dare_ties": differences("dare_ties", own=all_kept),
    "della": differences("della", own=all_kept_and_epsilon),
    "della_linear": differences("della_linear", own=all_kept_and_epsilon),
    "breadcrumbs": differences("breadcrumbs", own=density_and_gamma, stored=torch.float32),
    "breadcrumbs_ties": differences("breadcrumbs_ties", own=density_and_gamma, stored=torch.float32),
    "model_stock": model_stock,
    "sce": sce,
    "nearswap": nearswap,
    "ram": ram("ram", {}),
    "ramplus_tl": ram("ramplus_tl", {"r": (0, 0.5), "alpha": (0.05, 0.6)}),
    "arcee_fusion": arcee_fusion,
    "passthrough": passthrough,
    "slices": slices,
    "tokenizers": tokenizers,
    "stacked": stacked,
    f"ties{EQUALS}": differences("ties", own=density, stored=torch.bfloat16),
    f"breadcrumbs{EQUALS}": differences("breadcrumbs", own=density_and_gamma, stored=torch.bfloat16),
    f"breadcrumbs_ties{EQUALS}": differences("breadcrumbs_ties", own=density_and_gamma, stored=torch.bfloat16),
}


def draw(method: str, families: list[Family], seed: int, number: int) -> list[Case]:
    """So many cases of a method, in turn with output in float32 and in bfloat16. A case is the same whatever else is drawn."""
    found = []
    for place in range(number):
        name = f"{method}-{place + 1:02}"
        drawn = METHODS[method](Draw(f"{seed}/{name}"), families)
        found.append(Case(name, drawn, ("float32", "bfloat16")[place % 2], method.endswith(EQUALS)))
    return found
