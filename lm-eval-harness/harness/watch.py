"""Looks at what a model is asked and what it answers, while lm_eval runs a task."""

import math

from .errors import Refused
from .tripwires import Count, judge, repeats, warnings_of

# A limit of fewer new tokens is taken for part of the task: an answer of two tokens may be all that is wanted.
LEAST_LIMIT = 16

# Answers that are shown in the log, and how much of each.
SHOWN, SHOWN_CHARACTERS = 3, 300


class Watch:
    """Counts tripwires while it is open: `with Watch(lm, backend, task) as watch: …; watch.counts`.

    It stands before the model's three ways of being asked. What is wrong with the prompts is found before anything is
    computed.
    """

    def __init__(self, lm, backend, task):
        self.lm = lm
        self.backend = backend
        self.rules = task["tripwires"]
        # Saying `apply_chat_template: false` is to know of the template.
        template = getattr(getattr(lm, "tokenizer", None), "chat_template", None)
        self.untemplated = bool(template) and task["apply_chat_template"] is None
        self.counts = {}
        self.shown = {}
        self.pairs = None

    def __enter__(self):
        lm = self.lm
        self.replaced = []
        self.replace("generate_until", self.generate_until)
        self.replace("loglikelihood", self.loglikelihood)
        self.replace("loglikelihood_rolling", self.loglikelihood_rolling)
        if hasattr(lm, "_loglikelihood_tokens"):
            self.replace("_loglikelihood_tokens", self.loglikelihood_tokens)
        return self

    def __exit__(self, *_):
        for name in self.replaced:
            delattr(self.lm, name)

    def replace(self, name, function):
        """On the object, before its class: taking it away brings the class's own back."""
        real = getattr(self.lm, name)
        setattr(self.lm, name, lambda requests, **options: function(real, requests, **options))
        self.replaced.append(name)

    def note(self, tripwire, found, instance, answer=None):
        self.counts.setdefault(tripwire, Count()).add(found, instance.task_name, instance.doc_id)
        shown = self.shown.setdefault(tripwire, [])
        if found and answer is not None and len(shown) < SHOWN:
            shown.append((instance.task_name, instance.doc_id, answer))

    def examples(self, tripwire):
        """Lines that show some of what was counted."""
        return [
            f"  {tripwire}: document {doc_id} of {task}: {answer[:SHOWN_CHARACTERS]!r}"
            + (f" … ({len(answer):,} characters)" if len(answer) > SHOWN_CHARACTERS else "")
            for task, doc_id, answer in self.shown.get(tripwire, [])
        ]

    def judge_prompts(self):
        prompts = ("template", "truncated")
        judge([warning for warning in warnings_of(self.counts) if warning["tripwire"] in prompts], self.rules)

    def generate_until(self, real, requests, **options):
        from lm_eval.models.utils import normalize_gen_kwargs

        if getattr(self.lm, "tokenizer", None) is None:
            return real(requests, **options)
        limits = [normalize_gen_kwargs(request.args[1], self.lm.max_gen_toks)["max_gen_toks"] for request in requests]
        seq2seq = getattr(self.lm, "backend", "causal") == "seq2seq"
        for request, limit in zip(requests, limits):
            room = self.lm.max_length - (0 if seq2seq else limit)
            if room <= 0:
                raise Refused(
                    f"up to {limit:,} new tokens are asked for, and the model's max length is {self.lm.max_length:,}: "
                    "nothing is left for a prompt",
                    "set fewer (`gen_kwargs: { max_gen_toks: … }`), or a larger `max_length` in model_args",
                )
            self.note("template", self.untemplated, request)
            self.note("truncated", self.more_tokens(request.args[0], room), request)
        self.judge_prompts()
        answers = real(requests, **options)
        for request, limit, answer in zip(requests, limits, answers):
            cut = limit >= LEAST_LIMIT and self.reaches(answer, limit)
            self.note("empty", not answer.strip(), request, answer)
            if limit >= LEAST_LIMIT:
                self.note("cut", cut, request, answer)
                self.note("repeating", cut and repeats(answer), request, answer)
        return answers

    def more_tokens(self, text, room):
        """Whether a prompt has more tokens than there is room. No token is shorter than a byte."""
        return len(text.encode()) + 1 > room and len(self.lm.tok_encode(text)) > room

    def reaches(self, answer, limit):
        """Whether an answer is as long as it may be.

        lm_eval keeps the text alone. Made into tokens again it may have a few less than were made; a stop string, or the
        end of the text, would have left it shorter by chance only.
        """
        limit -= max(1, limit // 64)
        return len(answer.encode()) >= limit and len(self.lm.tok_encode(answer, add_special_tokens=False)) >= limit

    def loglikelihood(self, real, requests, **options):
        self.pairs = requests
        try:
            answers = real(requests, **options)
        finally:
            self.pairs = None
        for request, (value, _) in zip(requests, answers):
            self.note("nan", not math.isfinite(value), request)
        return answers

    def loglikelihood_rolling(self, real, requests, **options):
        answers = real(requests, **options)
        for request, value in zip(requests, answers):
            self.note("nan", not math.isfinite(value), request)
        return answers

    def loglikelihood_tokens(self, real, requests, **options):
        """Token ids `(_, context, continuation)` of the pairs that are being asked, in their order."""
        if self.pairs is not None and len(self.pairs) == len(requests):
            # vLLM wants room for one token more; transformers is not given the last one.
            room = self.lm.max_length + (-1 if self.backend == "vllm" else 1)
            for pair, (_, context, continuation) in zip(self.pairs, requests):
                self.note("template", self.untemplated, pair)
                self.note("truncated", len(context) + len(continuation) > room, pair)
            self.judge_prompts()
        return real(requests, **options)
