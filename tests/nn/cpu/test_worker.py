"""Worker processes: kept, replaced when they die, and never mistaken in what they answer."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from nn import Parallel, Tensor
from nn.cpu import worker


@pytest.fixture(autouse=True)
def no_workers():
    worker.stop()
    yield
    worker.stop()


def process_number(network, x):
    return Tensor(np.full(len(x), os.getpid(), np.float64))


def die(network, x):
    if os.getpid() != int(x[0]):
        os._exit(7)
    return Tensor(x)


def test_the_calling_process_works_too_and_workers_are_kept():
    cores = Parallel(3, shard=1)
    first = cores.map(process_number, None, np.zeros(3))
    assert len(set(first)) == 3
    assert first[0] == os.getpid()
    np.testing.assert_array_equal(cores.map(process_number, None, np.zeros(3)), first)
    np.testing.assert_array_equal(Parallel(2, shard=1).map(process_number, None, np.zeros(2)), first[:2])


def test_a_batch_of_one_shard_starts_no_process():
    Parallel(3, shard=4).map(process_number, None, np.zeros(4))
    assert not worker._workers


def test_a_worker_that_dies_is_an_error_that_says_so_and_the_next_call_has_a_new_one():
    cores = Parallel(2, shard=1)
    with pytest.raises(RuntimeError, match="died with exit status 7: is there enough memory"):
        cores.map(die, None, np.full(2, float(os.getpid())))
    assert len(set(cores.map(process_number, None, np.zeros(2)))) == 2


def test_a_worker_that_died_between_two_calls_is_an_error_too():
    cores = Parallel(2, shard=1)
    cores.map(process_number, None, np.zeros(2))
    worker._workers[0].process.kill()
    worker._workers[0].process.wait()
    with pytest.raises(RuntimeError, match="died with exit status"):
        cores.map(process_number, None, np.zeros(2))


def interrupt(network, x):
    if x[0] == 0:
        raise KeyboardInterrupt
    return Tensor(x)


def test_after_an_interruption_no_answer_of_before_is_taken_for_one_of_now():
    cores = Parallel(2, shard=1)
    with pytest.raises(KeyboardInterrupt):
        cores.map(interrupt, None, np.array([0.0, 1.0]))
    np.testing.assert_array_equal(cores.map(interrupt, None, np.array([2.0, 3.0])), [2.0, 3.0])


def nested(network, x):
    return Tensor(Parallel(2, shard=1).map(process_number, None, x))


def test_a_function_on_workers_that_uses_workers_itself_is_an_error_and_does_not_hang():
    with pytest.raises(RuntimeError, match="was about to use workers itself; give it one worker"):
        Parallel(2, shard=2).map(nested, None, np.zeros(4))


class Unpicklable(Exception):
    def __init__(self, one, two):
        super().__init__(one)


def refuse(network, x):
    if x[0] == 1:
        raise Unpicklable("no", "way")
    if x[0] == 2:
        sys.exit(3)
    return Tensor(x)


@pytest.mark.parametrize("number, words", [(1, "Unpicklable: no"), (2, "SystemExit: 3")])
def test_what_cannot_be_sent_back_or_would_end_the_caller_is_quoted(number, words):
    with pytest.raises(RuntimeError, match=f"(?s)In a worker process:.*in refuse.*{words}"):
        Parallel(2, shard=1).map(refuse, None, np.array([0.0, number]))


def test_modules_that_lie_in_the_current_directory_are_not_imported(tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise ImportError('the wrong numpy')")
    monkeypatch.chdir(tmp_path)
    assert len(set(Parallel(2, shard=1).map(process_number, None, np.zeros(2)))) == 2


def test_a_worker_that_is_still_importing_does_not_mind_ctrl_c():
    started = worker.Worker()
    time.sleep(0.1)
    started.process.send_signal(signal.SIGINT)
    worker._workers.append(started)
    assert len(set(Parallel(2, shard=1).map(process_number, None, np.zeros(2)))) == 2


def loud(network, x):
    print("printed in a worker")
    return Tensor(x)


def test_what_a_function_prints_does_not_garble_the_answers():
    np.testing.assert_array_equal(Parallel(2, shard=1).map(loud, None, np.arange(2.0)), [0, 1])


@pytest.mark.parametrize("function", [lambda network, x: Tensor(x)], ids=["lambda"])
def test_a_function_without_a_name_is_refused_with_what_to_do(function):
    with pytest.raises(TypeError, match=r"must be a function of a module or a script.*or use one worker"):
        Parallel(2, shard=1).map(function, None, np.zeros(2))
    assert Parallel(1).map(function, None, np.ones(2)).sum() == 2


# ==== scripts: what runs is defined in the file that Python was started with ====

SCRIPT = """
    import numpy as np
    from nn import Parallel, Tensor

    def double(network, x):
        return Tensor(2 * x)

    def main():
        print(Parallel(2, shard=1).map(double, None, np.arange(3.0)).tolist())
"""


def test_functions_typed_at_a_prompt_are_refused_with_what_to_do():
    done = run_python(["-c", textwrap.dedent(SCRIPT) + "\nmain()\n"])
    assert "put it in a file, or use one worker" in done.stderr


def test_an_exception_of_a_script_s_own_class_comes_back_as_it_is(tmp_path):
    done = run_script(
        tmp_path,
        SCRIPT.replace("return Tensor(2 * x)", "raise Mine('so')")
        + """
    class Mine(Exception):
        pass

    if __name__ == '__main__':
        try:
            Parallel(2, shard=1).map(double, None, np.arange(3.0))
        except Mine as error:
            print('caught', error)
""",
    )
    assert done.stdout == "caught so\n", done.stderr


def run_script(tmp_path, text):
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(text))
    return run_python([path])


def run_python(arguments):
    search = os.pathsep.join(entry for entry in sys.path if entry)
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": search},
    )


def test_functions_of_a_script_are_found(tmp_path):
    done = run_script(tmp_path, SCRIPT + "\n    if __name__ == '__main__':\n        main()\n")
    assert (done.stdout, done.returncode) == ("[0.0, 2.0, 4.0]\n", 0), done.stderr


def test_a_script_without_a_guard_is_an_error_that_says_so_and_starts_no_endless_chain(tmp_path):
    done = run_script(tmp_path, SCRIPT + "\n    main()\n")
    assert done.returncode != 0
    assert "must stand under `if __name__ == '__main__':`" in done.stderr
