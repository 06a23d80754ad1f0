"""What the tests of commands share: commands run in this process, and how they end."""

import pytest


@pytest.fixture
def flask(app):
    """`flask(*arguments, input=…)`: run a command in this process."""

    def run(*arguments, **options):
        return app.test_cli_runner().invoke(args=list(map(str, arguments)), **options)

    return run


def assert_told(done, code, words):
    """One sentence on standard error, no traceback, nothing on standard output."""
    assert (done.exit_code, done.stdout) == (code, ""), done.output
    last = done.stderr.splitlines()[-1]
    assert words in last
    assert last.startswith("Error: ")
    assert isinstance(done.exception, SystemExit)


def assert_done(done, said=None):
    """It did it, and said nothing on standard error; `said` is its one line."""
    assert (done.exit_code, done.stderr) == (0, ""), done.output
    if said is not None:
        assert done.stdout == f"{said}\n"
