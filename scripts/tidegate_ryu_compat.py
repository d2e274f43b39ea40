"""Lets Ryu 4.34 start on a current Python with a current eventlet.

Belongs in site-packages beside ``tidegate_ryu_compat.pth``, which imports it
whenever the interpreter starts. So all that happens here at start-up is that one
finder is put on ``sys.meta_path``: eventlet is touched only if the program itself
imports it, and other programs pay one dictionary look-up per import. For the same
reason nothing is imported here but ``sys``.
"""

import sys

TYPE_CHECKING = False  # typing's own flag would cost the import of typing at every start
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


def _give_wsgi_its_marker(module: "ModuleType") -> None:
    """Put back the name that ``ryu.app.wsgi``, which ``ryu-manager`` always imports, asks eventlet for."""
    if not hasattr(module, "ALREADY_HANDLED"):
        # setattr: to mypy a module has no such attribute.
        setattr(module, "ALREADY_HANDLED", object())  # noqa: B010


#: Module -> what to do to it right after it has been executed.
_REPAIRS = {"eventlet.wsgi": _give_wsgi_its_marker}


class RepairingFinder:
    """Finds the modules of ``_REPAIRS`` as usual, with a loader that repairs them."""

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """The module's spec if there is something to repair, else None: the other finders' turn."""
        repair = _REPAIRS.get(name)
        if repair is None:
            return None
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_repair(module: "ModuleType") -> None:
                execute(module)
                repair(module)

            spec.loader.exec_module = execute_and_repair  # type: ignore[method-assign]
        return spec


if not any(type(finder).__name__ == "RepairingFinder" for finder in sys.meta_path):
    sys.meta_path.insert(0, RepairingFinder())
