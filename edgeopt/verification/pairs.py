"""Who is compared with whom."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edgeopt.verification.trials import Array, Floats, Grid, Listed, Similarity, Trials

#: Positions of comparisons are 32-bit numbers.
_MOST = 1 << 32


class TooFew(Exception):
    """The samples cannot support the number; says why."""


@dataclass(frozen=True, eq=False)
class Design:
    """What is known of N samples, and with it which of them are compared.

    Attributes:
        identity: (N,) numbers or text; two samples of one identity are a genuine pair, of two an impostor pair.
        template: (N,) samples with equal values make one template, the mean of their embeddings; ``None``: each sample
            by itself.
        probe: (N,) bool; enrolled samples (False) are compared with probes (True) only. Probes are never put together
            into templates. ``None``: everything is compared with everything, once.
        pairs: (P, 2) sample numbers to compare; a sample stands for its template. ``None``: all pairs.
    """

    identity: Array
    template: Array | None = None
    probe: Array | None = None
    pairs: Array | None = None

    def __len__(self) -> int:
        return len(self.identity)

    @cached_property
    def digest(self) -> bytes:
        """Of the content."""
        digest = hashlib.blake2b(digest_size=16)
        for values in (self.identity, self.template, self.probe, self.pairs):
            digest.update(b"-" if values is None else f"{values.dtype.str}{values.shape}".encode())
            if values is not None:
                digest.update(np.ascontiguousarray(values).data)
        return digest.digest()


def prepare(embeddings: Array, design: Design, similarity: Similarity) -> Trials:
    """The comparisons of embeddings.

    Args:
        embeddings: (N, D).
        design: Of the same samples.
        similarity: ``cosine``, or ``l2``: minus the Euclidean distance of the embeddings as they are. For ``cosine``
            embeddings are brought to length 1 first, so that a template is the mean of directions.

    Raises:
        ValueError: The shapes do not fit, a template holds two identities, or a sample is paired with itself.
        TooFew: An embedding is not finite or has no direction, or there are no genuine or no impostor pairs.
    """
    if embeddings.ndim != 2 or not embeddings.shape[1]:
        raise ValueError(f"needs embeddings (N, D), the outputs are {embeddings.shape}")
    if len(embeddings) != len(design):
        raise ValueError(f"needs an identity for each of {len(embeddings)} embeddings, there are {len(design)}")
    vectors = np.asarray(embeddings, np.float64)
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise TooFew(f"the embedding of sample {int(np.argmin(finite))} is not finite")
    if similarity == "cosine":
        vectors = _directions(vectors, "the embedding of sample")
    names, person = np.unique(design.identity, return_inverse=True)
    if len(names) < 2:
        raise TooFew("all samples are of one identity: there is no impostor pair")
    vectors, person, template = _templates(vectors, person, design, similarity)
    trials: Trials
    if design.pairs is not None:
        trials = Listed(vectors, person, _paired(design, template), similarity, len(names))
    elif design.probe is not None:
        of_probes = np.zeros(len(vectors), bool)
        of_probes[template[design.probe.astype(bool)]] = True
        enrolled, probes = np.flatnonzero(~of_probes), np.flatnonzero(of_probes)
        trials = Grid(vectors, person, enrolled, probes, similarity, len(names))
    else:
        every = np.arange(len(vectors))
        trials = Grid(vectors, person, every, None, similarity, len(names))
    if trials.count >= _MOST:
        raise TooFew(f"{trials.count:,} comparisons are too many; give a list of `pairs`")
    if not trials.genuine.any():
        raise TooFew("there is no genuine pair: no two compared samples are of one identity")
    if not trials.impostors.any():
        raise TooFew("there is no impostor pair: all compared samples are of one identity")
    return trials


def _directions(vectors: Floats, what: str) -> Floats:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not norms.all():
        raise TooFew(f"{what} {int(np.argmin(norms))} has zero norm, so no direction to compare")
    return np.asarray(vectors / norms)


def _templates(vectors: Floats, person: Array, design: Design, similarity: Similarity) -> tuple[Floats, Array, Array]:
    """Vectors and people of templates, and the template (N,) of every sample."""
    if design.template is None:
        return vectors, person, np.arange(len(vectors))
    _, template = np.unique(design.template, return_inverse=True)
    if design.probe is not None:
        probes = np.flatnonzero(design.probe)
        template[probes] = template.max() + 1 + np.arange(len(probes))
        _, template = np.unique(template, return_inverse=True)
    sizes = np.bincount(template)
    owner = np.empty(len(sizes), person.dtype)
    owner[template] = person
    strange = np.flatnonzero(owner[template] != person)
    if len(strange):
        row = strange[0]
        raise ValueError(f"the template of sample {row} holds samples of two identities")
    means = np.zeros((len(sizes), vectors.shape[1]))
    np.add.at(means, template, vectors)
    means /= sizes[:, None]
    if similarity == "cosine":
        means = _directions(means, "the mean of template")
    return means, owner, template


def _paired(design: Design, template: Array) -> Array:
    assert design.pairs is not None
    pairs = template[design.pairs]
    same = np.flatnonzero(pairs[:, 0] == pairs[:, 1])
    if len(same):
        one, other = design.pairs[same[0]]
        raise ValueError(f"pair {same[0]} compares sample {one} with {other}: these are the same")
    return pairs if design.template is None else np.unique(np.sort(pairs, axis=1), axis=0)
