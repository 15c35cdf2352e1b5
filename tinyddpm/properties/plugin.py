"""The identities in pytest: each is a test of its own, with hypothesis's reporting, seeds and database.

    @diffusion_identities(MyAdapter())
    def test_my_scheduler(): ...

or, without a file of tests, `pytest --diffusion-identities package.module:factory`. What the adapter has no method for is
skipped. Installing tinyddpm installs this plugin. Next: data/images.py.
"""

import functools
import re

from tinyddpm.properties.cases import IDENTITIES, disagreement
from tinyddpm.properties.checks import cases, hypothesis
from tinyddpm.properties.report import load_adapters

__all__ = ["diffusion_identities"]


def diffusion_identities(adapters, **settings):
    """Decorator: one test becomes a test for each identity. Its body, if it has any, runs first.

    adapters: an Adapter, or a strategy that draws adapters. settings: those of hypothesis that differ from the
    profile's, such as max_examples=1000.
    """
    import pytest

    def decorate(test):
        def run(identity):
            test()
            examine(identity, adapters, f"{test.__module__}.{test.__qualname__}", settings)

        functools.update_wrapper(run, test)
        del run.__wrapped__  # pytest reads the arguments from what it wraps
        return pytest.mark.parametrize("identity", IDENTITIES, ids=lambda one: one.name)(run)

    return decorate


def examine(identity, adapters, where, settings):
    """Run one identity as a hypothesis test; `where` sets its failures in hypothesis's database apart from others'."""
    import pytest

    h = hypothesis()
    st = h.strategies

    def holds(case):
        h.assume(case.t >= identity.first)
        try:
            words = disagreement(identity, case)
        except NotImplementedError:
            pytest.skip("the adapter has no method for it")
        assert words is None, f"{identity.name}: {identity.statement}\n{words}"

    holds.__name__ = holds.__qualname__ = re.sub(r"\W+", "_", f"{where} {identity.name}")
    given = {"deadline": None, **settings}
    given["max_examples"] = min(identity.most, given.get("max_examples", h.settings().max_examples))
    drawn = adapters if isinstance(adapters, st.SearchStrategy) else st.just(adapters)
    h.settings(**given)(h.given(cases(drawn, identity.first))(holds))()


# ---- without a file: hooks of pytest ----


def pytest_addoption(parser):
    parser.addoption(
        "--diffusion-identities",
        metavar="package.module:factory",
        action="append",
        default=[],
        help="check the identities of the diffusion on the adapters that factory() returns",
    )


def pytest_configure(config):
    """With the option and no paths, nothing else is collected."""
    if config.getoption("--diffusion-identities") and config.args_source != config.ArgsSource.ARGS:
        config.args[:] = []


def pytest_collection_modifyitems(session, config, items):
    import pytest

    class IdentityTest(pytest.Item):
        def runtest(self):
            examine(self.identity, self.adapter, self.name, {})

        def reportinfo(self):
            return "tinyddpm.properties", None, self.name

    for name in config.getoption("--diffusion-identities"):
        try:
            adapters = load_adapters(name)
        except ValueError as error:
            raise pytest.UsageError(f"--diffusion-identities: {error}") from error
        for number, adapter in enumerate(adapters):
            for identity in IDENTITIES:
                label = f"{name}[{number}]" if len(adapters) > 1 else name
                item = IdentityTest.from_parent(session, name=f"{label} {identity.name}")
                item.adapter, item.identity = adapter, identity
                items.append(item)
