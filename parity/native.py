"""mergekit configurations as merges of the experiment language."""

# Methods to which a base is one more model.
WITHOUT_BASE = ("linear", "karcher")


class Unsaid(Exception):
    """This is compared as a mergekit file only."""


def name(model: str) -> str:
    """The entry of a model under a path such as `models/0/base`."""
    return "m" + model.removeprefix("models/").replace("/", "-")


def idle(method: str, parameter: str) -> bool:
    """Whether mergekit takes a parameter that changes nothing: the type of a mask of ones and zeros, and what is done to a
    difference of which something was taken away, where nothing is."""
    return parameter == "int8_mask" or (method == "task_arithmetic" and parameter in ("rescale", "density"))


def parameters(method: str, stated: dict) -> dict:
    return {key: value for key, value in stated.items() if not idle(method, key)}


def merge(config: dict, out: str) -> dict:
    """The entry of a merge."""
    if "models" not in config:
        raise Unsaid("slices and modules")
    if "tokenizer" in config or "tokenizer_source" in config:
        raise Unsaid("tokenizers")
    method, base = config["merge_method"], config.get("base_model")
    listed = config["models"]
    if base and method in WITHOUT_BASE:
        if all(entry["model"] != base for entry in listed):
            listed = [*listed, {"model": base}]
        base = None
    shared = parameters(method, config.get("parameters", {}))
    # A weight of all models is the weight of each.
    weight = {"weight": shared.pop("weight")} if "weight" in shared else {}
    models = [{"model": name(entry["model"])} | weight | parameters(method, entry.get("parameters", {}))
              for entry in listed if entry["model"] != base]
    found = {"method": method, "models": models, "dtype": out} | shared
    return found | ({"base": name(base)} if base else {})
