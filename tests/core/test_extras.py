"""What Steppe does where only its core is installed."""

import subprocess
import sys

import steppe
from steppe.core.extras import EXTRAS

HIDDEN = sorted({"equinox", *(module for modules in EXTRAS.values() for module in modules)})
BLOCKED = f"""
import sys
from importlib.machinery import PathFinder

class Core(PathFinder):
    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] in {HIDDEN!r} else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Core
"""
"""Makes a process see no package of any extra."""

CORE = """
import jax, jax.numpy as jnp, optax, steppe
from steppe import curvature, landscape, measures, sharpness

apply = lambda params, x: x @ params["w"]
params, batch = {"w": jnp.eye(3)}, {"x": jnp.eye(3), "y": jnp.array([0, 1, 2])}
loss = steppe.losses.of(apply)
tx = optax.chain(steppe.methods.fa(lam=0.1, every=1), optax.sgd(0.1))
tx.update(jax.grad(loss)(params, batch), tx.init(params), params, loss=loss, batch=batch)
curvature.hessian(loss, params, batch).dense()
sharpness.fisher_rao(apply, params, batch)
landscape.interpolation(loss, params, params, batch, points=3)
print(measures.measure(["loss", "fisher_rao"], apply=apply, params=params, batches=batch)[0].quantity)
for name in ("study", "models", "data", "report"):
    try:
        getattr(steppe, name)
    except ImportError as error:
        print(error)
"""

STAR = """
from steppe import *
print(sorted({"losses", "measures", "study", "models", "data", "report"} & set(globals())))
"""

COMMAND = "sys.argv = ['steppe', 'list']; from steppe.cli import main; main()"


def ended(code):
    done = subprocess.run([sys.executable, "-c", BLOCKED + code], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


def test_the_core_works_alone_and_other_parts_say_what_to_install():
    status, printed, errors = ended(CORE)
    assert (status, errors, printed[0]) == (0, [], "loss")
    assert printed[1].startswith("steppe.study needs datasets, flax, ")
    assert printed[1].endswith("which are not installed. Run: pip install 'steppe[study]'")
    assert printed[2] == "steppe.models needs flax, which is not installed. Run: pip install 'steppe[study]'"
    assert printed[3].startswith("steppe.data needs datasets, ") and "'steppe[study]'" in printed[3]
    assert printed[4].startswith("steppe.report needs ") and "'steppe[study,report]'" in printed[4]


def test_everything_is_imported_at_once_that_the_core_alone_has():
    assert ended(STAR) == (0, ["['losses', 'measures']"], [])


def test_the_command_says_its_version_without_any_extra():
    status, (printed,), errors = ended(COMMAND.replace("'list'", "'--version'"))
    assert (status, errors) == (0, []) and printed.startswith("steppe ")


def test_an_editor_is_offered_public_names_only():
    names = {name for name in dir(steppe) if not name.startswith("__")}
    assert names == set(steppe.__all__) and "study" in names


def test_the_command_says_what_to_install():
    status, printed, (error,) = ended(COMMAND)
    assert (status, printed) == (2, [])
    assert error.startswith("steppe: The command steppe needs ") and "pip install 'steppe[study,report,cli]'" in error
