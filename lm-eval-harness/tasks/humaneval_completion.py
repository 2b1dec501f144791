"""Programs of `humaneval_completion`; prompt and scoring are those of `humaneval_instruct_regmean`."""

# What the answer is begun with after the docstring. The last space of an indentation belongs to the token of the word after it.
BEGUN = "\n   "


def build_predictions(resps, docs):
    """Whole programs: the problem, the beginning of its body that the model was given, and the response."""
    return [[doc["prompt"].rstrip() + BEGUN + response for response in answers] for answers, doc in zip(resps, docs)]
