"""Responses of a model: taken down where the model is, and answered from there where it is not."""

import json

from lm_eval.api.model import LM

from .results import plain


class Answered(Exception):
    """Every request has its response, and scoring is about to begin."""


class Differs(Exception):
    """A request is not one that the model has answered."""


def generate(lm, loaded, run):
    """Has a model answer all requests of a task, by way of `run`, which evaluates; nothing is scored, no filter applied.

    Gives what [`Replay`] needs to answer the same requests: one record each, in the order of the requests.
    """

    def stop():
        raise Answered

    rendered = []
    theirs = lm.apply_chat_template

    def render(history, add_generation_prompt=True):
        text = theirs(history, add_generation_prompt=add_generation_prompt)
        rendered.append({"history": plain(history), "generation": add_generation_prompt, "text": text})
        return text

    lm.apply_chat_template = render
    for task in loaded["tasks"].values():
        task.apply_filters = stop
    try:
        run()
    except Answered:
        pass
    finally:
        del lm.apply_chat_template
        for task in loaded["tasks"].values():
            del task.apply_filters
    return [*rendered, *(answer(instance) for task in loaded["tasks"].values() for instance in task.instances)]


def answer(instance):
    return {**request(instance), "responses": instance.resps}


def request(instance):
    return {
        "type": instance.request_type,
        "task": instance.task_name,
        "document": instance.doc_id,
        "index": instance.idx,
        "arguments": plain(instance.args),
    }


def write(path, records):
    """One record a line. A response may hold NaN or infinity, which Python's JSON knows."""
    with open(path, "w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record) + "\n")


def read(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


class Replay(LM):
    """A model that answers what it was asked before, and nothing else."""

    def __init__(self, records):
        super().__init__()
        self.rendered = {}
        self.answers = {}
        for record in records:
            if "history" in record:
                self.rendered[chat(record["history"], record["generation"])] = record["text"]
            else:
                responses = record.pop("responses")
                self.answers[tuple(record[part] for part in ("type", "task", "document", "index"))] = (record, iter(responses))

    def reply(self, instance):
        asked = request(instance)
        place = tuple(asked[part] for part in ("type", "task", "document", "index"))
        known, responses = self.answers.get(place, (None, iter(())))
        if known != asked:
            raise Differs(f"request {place}: its text is not the one that the model was asked")
        try:
            return next(responses)
        except StopIteration:
            raise Differs(f"request {place} is asked more often than the model was") from None

    def generate_until(self, requests):
        return [self.reply(instance) for instance in requests]

    def loglikelihood(self, requests):
        return [tuple(self.reply(instance)) for instance in requests]

    def loglikelihood_rolling(self, requests):
        return [self.reply(instance) for instance in requests]

    def apply_chat_template(self, chat_history, add_generation_prompt=True):
        try:
            return self.rendered[chat(plain(chat_history), add_generation_prompt)]
        except KeyError:
            raise Differs("a conversation is not one that the model was asked") from None

    @property
    def tokenizer_name(self):
        return "replay"


def chat(history, generation):
    return json.dumps([history, generation], sort_keys=True)
