"""Uploading a model to the Hugging Face hub: when it is asked for, never by itself.

A repository has the files of :mod:`napari_pbip.sharing.packing`, one by one, so that its page shows the model card.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from napari_pbip.engine.hub import FAULTS, fault, no_bars, page
from napari_pbip.engine.jobs import job
from napari_pbip.errors import OutputError
from napari_pbip.events import Finished, Job, Started, Step, Warned
from napari_pbip.sharing.packing import CONTENTS, PACKED, Contents
from napari_pbip.sharing.unpacking import unpacking_file

Operation = CommitOperationAdd | CommitOperationDelete
_GIT = ".gitattributes"
"""A file that the hub itself makes."""


@job
def push(model: Path | str, repository: str, licence: str = "", *, public: bool = False) -> Job:
    """Upload a trained model to the Hugging Face hub, with its card and without tiles.

    What is uploaded is what :func:`~napari_pbip.sharing.packing.pack` packs. The token is that of ``hf auth login`` or
    ``HF_TOKEN``. The repository is made if there is none, and shows the model only when all of it is there. An earlier
    model in it is replaced, and stays in its history.

    Parameters
    ----------
    model
        Folder of a training, or a file of ``pack``.
    repository
        Name of the repository, ``OWNER/NAME``.
    licence
        Terms under which others may use the model, for the card; a file of ``pack`` has its own.
    public
        Whether everybody may see a new repository. It is private by default.

    Yields
    ------
    Event
        ``Warned`` if a private repository stays so; ``Finished`` with its ``address``, and whether it is ``private``.

    Raises
    ------
    ModelError
        If it is no model, or a damaged one.
    OutputError
        If you are not logged in or may not write the repository, the hub cannot be reached, the repository holds
        other files than a packed model, or it is public and that was not asked for.
    """
    model = Path(model)
    with TemporaryDirectory(prefix="napari-pbip-") as temporary:
        if model.is_file():
            if licence:
                raise OutputError(f"{model} states its licence already; push the folder of the training with another.")
            yield from unpacking_file(model, Path(temporary, "model"), described=True)
            contents = Contents.of_folder(Path(temporary, "model"))
        else:
            contents = Contents.of_run(model, licence)
        try:
            with no_bars():
                yield from _pushing(contents, repository, public=public)
        except FAULTS as error:
            raise OutputError(f"{fault(repository, error)}.") from error
        except RuntimeError as error:  # in which the library wraps a fault of a large file
            raise OutputError(f"{fault(repository, error.__cause__ or error)}.") from error
        except ValueError as error:  # the library's, if the hub refuses the contents
            raise OutputError(f"The hub refuses the model ({' '.join(str(error).split())[:200]}).") from error


def _pushing(contents: Contents, repository: str, *, public: bool) -> Job:
    validate_repo_id(repository)
    api, packed = HfApi(token=True), contents.packed  # which asks for a login
    held = _held(api, repository)
    if held is None:
        api.create_repo(repository, private=not public)
        held = (not public, frozenset())
    private, earlier = held
    if not private and not public:
        raise OutputError(
            f"{repository} is public, so that everybody would see the model; use `public=True` to publish it, or "
            "choose another name."
        )
    if earlier and PACKED not in earlier:
        raise OutputError(f"{repository} holds other files than a packed model; choose another name.")
    if private and public:
        yield Warned(f"{repository} is private and stays so; its page, {page(repository)}, can make it public.")
    weights = [CommitOperationAdd(name, path) for name, path in contents.weights.items()]
    texts = [CommitOperationAdd(name, text.encode()) for name, text in contents.texts.items()]
    gone = sorted(earlier & {*CONTENTS} - contents.texts.keys() - contents.weights.keys())
    yield Started(f"Uploading {packed.name} to {repository}", total=len(weights) + 1, unit="files")
    for done, one in enumerate(weights):
        api.preupload_lfs_files(repository, additions=[one])
        yield Step(done + 1)
    operations: list[Operation] = [*texts, *weights, *(CommitOperationDelete(name) for name in gone)]
    api.create_commit(repository, operations, commit_message=f"{packed.name}, weights {packed.identity}")
    yield Step(len(weights) + 1)
    yield Finished(None, {"address": page(repository), "private": private, "identity": packed.identity})


def _held(api: HfApi, repository: str) -> tuple[bool, frozenset[str]] | None:
    """Return whether a repository is private, and the names of its files; None if there is none."""
    try:
        info = api.model_info(repository)
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        return None
    return bool(info.private), frozenset(one.rfilename for one in info.siblings or ()) - {_GIT}
