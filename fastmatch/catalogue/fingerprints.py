"What a catalogue's vectors and pairs were made by, as hashes: a matcher that differs is noticed."
import hashlib
import json

from ..match import Dense, PictureSets


def encoder_fingerprint(
    matcher,  # `Matcher`
) -> str:
    "A sha256 over all that makes vectors of listings: equal where two matchers embed alike."
    if matcher.encoder is None:
        return _digest(json.dumps([matcher.catalogue.made_with, vector_widths(matcher)], sort_keys=True))
    files = matcher.files()
    spec = json.loads(files['matcher.json'])['encoder']
    others = {'listings.json', 'vectors.safetensors', 'matcher.json', 'tfidf.json', 'fields.json'}
    parts = [json.dumps(spec, sort_keys=True).encode()]
    for name in sorted(set(files) - others): parts += [name.encode(), files[name]]
    return _digest(*parts)


def rule_fingerprint(
    matcher,  # `Matcher`
) -> str:
    "A sha256 over all that decides besides the vectors: the rule, and the weights of n-grams."
    parts = [json.dumps(matcher.rule.to_dict(), sort_keys=True)]
    for name, space in sorted(matcher.spaces.items()):
        if not hasattr(space, 'state'): continue
        settings, arrays = space.state()
        parts += [name, json.dumps(settings, sort_keys=True), arrays['idf'].tobytes()]
    return _digest(*parts)


def _digest(*parts):
    digest = hashlib.sha256()
    for part in parts: digest.update(part if isinstance(part, bytes) else part.encode())
    return digest.hexdigest()


def vector_widths(
    matcher,  # `Matcher`
) -> dict:  # Modality -> numbers of a vector
    "The vectors that a catalogue keeps of each listing."
    if matcher.encoder is not None: return dict(matcher.encoder.widths)
    return {modality: int(space.dim) for modality, space in matcher.spaces.items()
            if isinstance(space, (Dense, PictureSets))}
