"""
What can go wrong with models, each in one line that names the thing and the fix:
* ModelsError
  - CatalogError   models.yaml cannot be read or contradicts itself
  - FetchError     a source file is missing, unreachable or not the one the catalogue names
  - ExportError    the files are right but this exporter cannot turn them into an artifact
  - StoreError     the store on disk is busy, damaged or cannot be written
"""


class ModelsError(Exception):
    """Base of every error that `edge.models` raises on purpose."""


class CatalogError(ModelsError):
    pass


class FetchError(ModelsError):
    pass


class ExportError(ModelsError):
    pass


class StoreError(ModelsError):
    pass
