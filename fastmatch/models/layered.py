"The parameters of an encoder by layer, from its input to its output: for rates that fall with the depth."
from torch import nn


def parameters_by_layer(
    encoder: nn.Module,  # Image or title encoder
) -> list[list]:
    """The parameters of each layer, the first one that the input meets first.

    Of timm's models the layers are those that timm itself has for such rates, of others the entries of their
    longest list of modules (`encoder.layer` of a BERT), with what is before and after it.
    """
    body = getattr(encoder, 'body', encoder)
    numbers = _timm_layers(body) if hasattr(body, 'group_matcher') else _listed_layers(body)
    last = max(numbers.values(), default=0)
    layer_of = {id(parameter): numbers.get(name, last) for name, parameter in body.named_parameters()}
    layers = [[] for _ in range(last + 1)]
    # what an encoder has beside its body, such as a pooling with a weight, comes after it
    for parameter in encoder.parameters(): layers[layer_of.get(id(parameter), last)].append(parameter)
    return [layer for layer in layers if layer]


def encoder_groups(
    encoders,  # Modality -> encoder
    by_layer: bool,  # Whether each layer is a group
) -> dict[str, list]:
    "The parameters of encoders by name of group: 'image', or 'image.0', 'image.1', ... for its layers."
    # one that stands still has none
    encoders = {modality: encoder for modality, encoder in encoders.items()
                if next(encoder.parameters(), None) is not None}
    if not by_layer: return {modality: list(encoder.parameters()) for modality, encoder in encoders.items()}
    return {f'{modality}.{number}': layer for modality, encoder in encoders.items()
            for number, layer in enumerate(parameters_by_layer(encoder))}


def _timm_layers(body):
    "Parameter name -> layer number, as timm's layer decay has it."
    from timm.models import group_parameters
    return group_parameters(body, body.group_matcher(coarse=False), reverse=True)


def _listed_layers(body):
    "Parameter name -> layer number by the longest list of modules; 0 for all where there is no list."
    lists = {path: len(module) for path, module in body.named_modules() if isinstance(module, nn.ModuleList)}
    names = [name for name, _ in body.named_parameters()]
    if not lists: return dict.fromkeys(names, 0)
    path = max(lists, key=lists.get)
    numbers, is_after = {}, False
    for name in names:
        if name.startswith(f'{path}.'):
            numbers[name] = 1 + int(name.removeprefix(f'{path}.').split('.')[0])
            is_after = True
        else: numbers[name] = lists[path] + 1 if is_after else 0
    return numbers
