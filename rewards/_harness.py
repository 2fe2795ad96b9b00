"""Runs a program and then its tests, and says of each test that it passed; this text runs inside the sandbox.

What the program prints goes nowhere. Verdicts go to a copy of the standard output, each with a word that the program
has not been told, and what the tests use is bound before the program runs: leaving early, printing the expected words
or replacing `len` passes no test. The two share an interpreter all the same, so a program that sets out to find the
word, or returns an object that equals everything, can pass: it harms its own reward, and not the machine.
"""

import builtins
import os
import sys
import types

STOPPED = ("sys.settrace", "sys.setprofile", "_thread.start_new_thread")  # with which steps could go uncounted


def run(task):
    """`task` has "word", "program", "setup", "tests" and "count", all of them text, a list of text and a bool."""
    said, write = os.dup(1), os.write
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    tests = [compiled(test) for test in task["tests"]]
    originals = dict(vars(builtins))
    module = types.ModuleType("program")
    sys.modules["program"] = module
    steps = counted() if task["count"] else []

    def tell(*verdict):
        write(said, (" ".join([task["word"], *map(str, verdict)]) + "\n").encode())

    tell("ready")
    try:
        exec(compile(task["program"] + "\n", "program.py", "exec"), vars(module))
        exec(compile(task["setup"] + "\n", "setup.py", "exec"), vars(module))
    except BaseException:
        tests = []
    for number, test in enumerate(tests):
        vars(builtins).update(originals)
        tell("begun", number)
        try:
            if test is None:
                continue
            exec(test, seen(vars(module), test, originals))
        except BaseException:
            continue
        tell("passed", number)
    tell("ended", sum(steps))


def compiled(test):
    """A test's code; None for one that is none."""
    try:
        return compile(test + "\n", "test.py", "exec")
    except (SyntaxError, ValueError):
        return None


def seen(names, test, originals):
    """What a test sees of the program: its names, but a built-in one only where it is what the test is about."""
    used = set(test.co_names) & set(names)
    is_about_builtin = used <= set(originals)
    kept = {name: value for name, value in names.items() if is_about_builtin or name not in originals}
    return {**kept, "__builtins__": dict(originals)}


def counted():
    """A list of one number, which from here on counts the instructions that the interpreter executes."""
    steps = [0]

    def trace(frame, event, argument):
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        if event == "opcode":
            steps[0] += 1
        return trace

    def stop(event, arguments):
        if event in STOPPED:
            os._exit(1)

    sys.settrace(trace)
    sys.addaudithook(stop)
    return steps
