"""Programs of `humaneval_completion`; prompt and scoring are those of `humaneval_instruct_regmean`."""

from humaneval_instruct_regmean import doc_to_target, doc_to_text, process_results, up_to_last_fence

__all__ = ["build_predictions", "doc_to_target", "doc_to_text", "process_results"]

# What the answer is begun with after the docstring. The last space of an indentation belongs to the token of the word after it.
BEGUN = "\n   "


def build_predictions(resps, docs):
    """Whole programs: the problem, the beginning of its body that the model was given, and the response up to its last fence."""
    return [[doc["prompt"].rstrip() + BEGUN + up_to_last_fence(response) for response in answers]
            for answers, doc in zip(resps, docs)]
