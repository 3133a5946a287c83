"""Puts off transformers' scan of its models, which reads 1,700 files to find out which module each name is in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

Structure = dict[frozenset[str], dict[str, set[str]]]
"""The names in each module, by what they require."""

_PREFIXES = {"transformers": "models.", "transformers.models": ""}
_KNOWN = ("_objects", "_modules", "_class_to_module")
_FOUND = ("_class_to_module", "_object_missing_backend")
_UNSCANNED = "_unscanned"
_REPLACED = ("define_import_structure", "_LazyModule")


def put_off_scan(import_utils: Any) -> None:
    """Have `transformers` and `transformers.models` scan their models when an unknown name is asked of them.

    Loading a tokenizer asks for no name but that of its class, which is in one of the few files for tokenizers.

    Args:
        import_utils: `transformers.utils.import_utils`, before others import it. Nothing changes if it lacks the
            functions that are replaced; transformers 5.x has them.
    """
    if not all(callable(getattr(import_utils, name, None)) for name in _REPLACED):
        return
    models = Path(import_utils.__file__).parents[1] / "models"
    scan, lazy_module = import_utils.define_import_structure, import_utils._LazyModule

    def scan_later(path: str | Path, prefix: str | None = None) -> Structure:
        is_put_off = Path(path) in (models, models / "__init__.py")
        found: Structure = {frozenset(): {}} if is_put_off else scan(path, prefix)
        return found

    import_utils.define_import_structure = scan_later
    import_utils._LazyModule = _unscanned_module(lazy_module, scan, models)


def _unscanned_module(lazy_module: Any, scan: Callable[[Path, str | None], Structure], models: Path) -> type[Any]:
    """Return a class of modules in place of transformers' own."""

    class UnscannedModule(lazy_module):  # type: ignore[misc]  # known only now
        def __init__(self, name: str, file: str, names: Structure, *others: Any, **options: Any) -> None:
            super().__init__(name, file, names, *others, **options)
            if name not in _PREFIXES:
                return

            def scanned() -> ModuleType:
                found = scan(models, _PREFIXES[name].rstrip(".") or None)
                every = {**found, frozenset(): {**found.get(frozenset(), {}), **names[frozenset()]}}
                module: ModuleType = lazy_module(name, file, every, *others, **options)
                return module

            def scanned_for_tokenizer(asked: str) -> list[ModuleType]:
                paths = models.glob("*/tokenization_*.py")
                folders = {path.parent for path in paths if asked in path.read_text(encoding="utf-8")}
                candidates = [lazy_module(name, file, scan(each, _PREFIXES[name] + each.name)) for each in folders]
                return [each for each in candidates if asked in each._class_to_module]

            del self.__all__  # it does not have all names yet
            self.__dict__[_UNSCANNED] = (scanned, scanned_for_tokenizer)

        def __getattr__(self, name: str) -> Any:
            own = self.__dict__
            if _UNSCANNED not in own or any(name in own[names] for names in _KNOWN):
                return super().__getattr__(name)
            scanned, scanned_for_tokenizer = own[_UNSCANNED]
            found = scanned_for_tokenizer(name) if name.endswith("Tokenizer") else []
            if len(found) == 1:
                for names in _FOUND:
                    own[names].update({key: value for key, value in vars(found[0])[names].items() if key == name})
            else:
                own.update(vars(scanned()))
                own.pop(_UNSCANNED, None)  # last, and perhaps by another thread: until then, names are looked for
            return getattr(self, name)

    return UnscannedModule
