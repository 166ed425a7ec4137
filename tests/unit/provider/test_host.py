"""What Pulumi's host is made to say of an error: ours as a sentence, every other one with the way it took."""

from __future__ import annotations

import importlib.machinery
import logging
import traceback
from collections.abc import Iterator
from types import ModuleType

import pytest

from pulumi_farshore.host import GRPC_LOG, HOST, Silence, speak_in_sentences
from pulumi_farshore.reporting import FarshoreProviderError

SENTENCE = "MySQLPair orders: [failed_over] the pair is failed over\n  next: farshore describe orders"


def process(name: str) -> ModuleType:
    """Return a main module that answers as the host does."""
    made = ModuleType("__main__")
    made.__spec__ = importlib.machinery.ModuleSpec(name, None)
    exec("import traceback", vars(made))
    return made


@pytest.fixture
def host() -> Iterator[ModuleType]:
    """A host that was taught; the process-wide logger is as before afterwards."""
    made = process(HOST)
    speak_in_sentences(FarshoreProviderError, made)
    yield made
    log = logging.getLogger(GRPC_LOG)
    for each in [each for each in log.filters if isinstance(each, Silence)]:
        log.removeFilter(each)


def answer(host: ModuleType, error: Exception) -> str:
    try:
        raise error
    except (FarshoreProviderError, KeyError):
        return str(vars(host)["traceback"].format_exc())


def test_an_error_of_ours_is_its_sentence_and_a_foreign_one_keeps_its_traceback(host: ModuleType) -> None:
    """What went wrong outside of our errors must stay findable."""
    assert answer(host, FarshoreProviderError(SENTENCE)) == SENTENCE
    foreign = answer(host, KeyError("site"))
    assert foreign.startswith("Traceback (most recent call last):")
    assert "in answer" in foreign
    assert foreign.endswith("KeyError: 'site'\n")
    assert vars(host)["traceback"].format_exception is traceback.format_exception


def test_grpc_logs_only_what_is_not_ours(host: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    """Older hosts leave errors to the grpc server, which answers with the sentence and logs the traceback."""
    speak_in_sentences(FarshoreProviderError, host)
    log = logging.getLogger(GRPC_LOG)
    assert len([each for each in log.filters if isinstance(each, Silence)]) == 1
    for error in (FarshoreProviderError(SENTENCE), KeyError("site")):
        try:
            raise error
        except (FarshoreProviderError, KeyError):
            log.exception("Exception calling application")
    log.warning("something else")
    logged = [(record.message, record.exc_info and record.exc_info[0]) for record in caplog.records]
    assert logged == [("Exception calling application", KeyError), ("something else", None)]


def test_a_process_that_is_no_host_is_left_alone() -> None:
    """The package is imported by users' programs and by tests as well."""
    other = process("somebody.else")
    speak_in_sentences(FarshoreProviderError, other)
    assert vars(other)["traceback"] is traceback
    speak_in_sentences(FarshoreProviderError)
    assert not any(isinstance(each, Silence) for each in logging.getLogger(GRPC_LOG).filters)
