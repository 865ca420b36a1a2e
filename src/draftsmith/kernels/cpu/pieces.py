"""Single stages of a decoder on the C++ kernels, for small networks that are no whole decoder.

A call costs two microseconds, where torch's own operations cost ten to a hundred. Elsewhere than
on a CPU with the kernels, torch computes the same.
"""

import ctypes

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention, silu

from draftsmith.kernels.cpu.library import Library, library

__all__ = ["KeyValues", "has_kernels", "plain_attention", "rms_norm", "rotate", "swiglu"]

_BLOCK = 16
_FIRST_SLOTS = 256
_FLOAT_BYTES = 4


def has_kernels(device: torch.device) -> bool:
    """Whether the C++ kernels compute on a device."""
    return device.type == "cpu" and library() is not None


def _kernels_for(states: Tensor) -> Library | None:
    return library() if states.device.type == "cpu" and states.dtype == torch.float32 else None


def rms_norm(
    states: Float[Tensor, "*batch width"], weight: Float[Tensor, " width"], epsilon: float
) -> Float[Tensor, "*batch width"]:
    """RMSNorm (Zhang & Sennrich, arXiv:1910.07467).

    Args:
        states: Normed over their last dimension.
        weight: Multiplies the outcome.
        epsilon: Added to the mean of squares.

    Returns:
        A tensor of its own.
    """
    loaded = _kernels_for(states)
    if loaded is None:
        mean = states.square().mean(-1, keepdim=True)
        return weight * (states * torch.rsqrt(mean + epsilon))
    states = states.contiguous()
    out, width = torch.empty_like(states), states.shape[-1]
    loaded.ds_rms_norm(
        states.data_ptr(),
        weight.data_ptr(),
        states.numel() // width,
        width,
        epsilon,
        out.data_ptr(),
    )
    return out


def swiglu(joined: Float[Tensor, "rows twice_width"]) -> Float[Tensor, "rows width"]:
    """`silu(gate) * up` of rows that hold both, the gate first (Shazeer, arXiv:2002.05202)."""
    width = joined.shape[1] // 2
    loaded = _kernels_for(joined)
    if loaded is None:
        return silu(joined[:, :width]) * joined[:, width:]
    joined = joined.contiguous()
    out = torch.empty(len(joined), width)
    for row in range(len(joined)):
        gate = joined.data_ptr() + _FLOAT_BYTES * 2 * width * row
        place = out.data_ptr() + _FLOAT_BYTES * width * row
        loaded.ds_swiglu(gate, gate + _FLOAT_BYTES * width, width, place)
    return out


def rotate(
    states: Float[Tensor, "rows heads head"],
    cosines: Float[Tensor, "rows half"],
    sines: Float[Tensor, "rows half"],
) -> Float[Tensor, "rows heads head"]:
    """Turn element i of each head with element i + half, by its row's angle i.

    Args:
        states: Of which a CPU's are turned where they lie.
        cosines: Of each row's angles.
        sines: The same.

    Returns:
        The turned states.
    """
    loaded = _kernels_for(states)
    if loaded is None:
        first, second = states.chunk(2, dim=-1)
        cosine, sine = cosines.unsqueeze(1), sines.unsqueeze(1)
        return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)
    rows, heads, size = states.shape
    states = states.contiguous()
    cosines = cosines.repeat_interleave(heads, dim=0).contiguous()
    sines = sines.repeat_interleave(heads, dim=0).contiguous()
    loaded.ds_rotate(states.data_ptr(), cosines.data_ptr(), sines.data_ptr(), rows * heads, size)
    return states


class KeyValues:
    """Keys and values of one sequence, all layers, in float32 on a CPU with the kernels.

    Keys lie in blocks of 16 positions, element by element, as the kernels read them.

    Args:
        num_layers: Each with keys and values of its own.
        num_heads: Of keys.
        head_size: Elements of each.
    """

    def __init__(self, num_layers: int, num_heads: int, head_size: int) -> None:
        loaded = library()
        assert loaded is not None
        self._library: Library = loaded
        # The kernels write a value in whole vectors.
        self._stride = -(-head_size // _BLOCK) * _BLOCK
        blocks = num_layers, num_heads, _FIRST_SLOTS // _BLOCK
        self._keys = torch.empty(*blocks, head_size * _BLOCK)
        self._values = torch.empty(*blocks, self._stride * _BLOCK)
        self.length = 0

    def reserve(self, count: int) -> None:
        """Make room for `count` more slots."""
        held = -(-self.length // _BLOCK)
        wanted = -(-(self.length + count) // _BLOCK)
        room = self._keys.shape[2]
        if wanted <= room:
            return
        while room < wanted:
            room *= 2
        self._keys = _grown(self._keys, held, room)
        self._values = _grown(self._values, held, room)

    def store(
        self,
        layer: int,
        keys: Float[Tensor, "rows kv_heads head"],
        values: Float[Tensor, "rows kv_heads head"],
    ) -> None:
        """Write a layer's new rows behind what is held.

        `length` is not moved: all layers of a pass write to the same slots.
        """
        rows, kv_heads, size = keys.shape
        keys, values = keys.contiguous(), values.contiguous()
        row_bytes = _FLOAT_BYTES * size
        for head in range(kv_heads):
            held_keys = self._place(self._keys, layer, head)
            held_values = self._place(self._values, layer, head)
            for row in range(rows):
                offset = row_bytes * (row * kv_heads + head)
                self._library.ds_store(
                    keys.data_ptr() + offset,
                    values.data_ptr() + offset,
                    size,
                    self._stride,
                    self.length + row,
                    0,
                    held_keys,
                    held_values,
                )

    def attend(
        self,
        layer: int,
        query: Float[Tensor, "rows heads head"],
        keys: Float[Tensor, "rows kv_heads head"],
        values: Float[Tensor, "rows kv_heads head"],
        *,
        is_causal: bool = True,
    ) -> Float[Tensor, "rows heads*head"]:
        """Write a layer's new rows behind what is held; what each gathers of all up to itself.

        Args:
            layer: Its number.
            query: Of the new rows.
            keys: The same.
            values: The same.
            is_causal: Else each sees the new rows behind it, too.
        """
        self.store(layer, keys, values)
        rows, kv_heads, size = keys.shape
        group = query.shape[1] // kv_heads
        # [kv_heads, group * rows, head]: each key head's queries side by side.
        grouped = query.view(rows, kv_heads, group, size).permute(1, 0, 2, 3).contiguous()
        out = torch.empty_like(grouped)
        ends = range(1, rows + 1) if is_causal else [rows] * rows
        last = [self.length + end for end in ends for _ in range(group)]
        reach = (ctypes.c_int32 * len(last))(*last)
        start = (ctypes.c_int32 * len(last))()
        head_bytes = _FLOAT_BYTES * size * rows * group
        for head in range(kv_heads):
            self._library.ds_attend(
                grouped.data_ptr() + head_bytes * head,
                ctypes.addressof(start),
                ctypes.addressof(reach),
                len(last),
                size,
                self._stride,
                size**-0.5,
                0,
                self._place(self._keys, layer, head),
                self._place(self._values, layer, head),
                out.data_ptr() + head_bytes * head,
            )
        return out.view(kv_heads, rows, group, size).permute(1, 0, 2, 3).reshape(rows, -1)

    def _place(self, buffer: Tensor, layer: int, head: int) -> int:
        layers = buffer.stride(0) * layer + buffer.stride(1) * head
        return buffer.data_ptr() + _FLOAT_BYTES * layers


def _grown(
    old: Float[Tensor, "layers heads blocks block"], held: int, room: int
) -> Float[Tensor, "layers heads room block"]:
    new = torch.empty(*old.shape[:2], room, old.shape[3])
    new[:, :, :held] = old[:, :, :held]
    return new


def plain_attention(
    query: Float[Tensor, "rows heads head"],
    keys: Float[Tensor, "slots kv_heads head"],
    values: Float[Tensor, "slots kv_heads head"],
    *,
    is_causal: bool = True,
) -> Float[Tensor, "rows heads*head"]:
    """What the last rows of a sequence gather of it, each of what lies before it and of itself.

    Args:
        query: Of the last rows.
        keys: Of all.
        values: Of all.
        is_causal: Else each sees the rows behind it, too.

    Returns:
        Of each row, all heads.
    """
    rows, slots = len(query), len(keys)
    reach = torch.arange(slots - rows, slots, device=query.device).unsqueeze(1)
    mask = torch.arange(slots, device=query.device) <= reach
    gathered = scaled_dot_product_attention(
        query.transpose(0, 1).unsqueeze(0),
        keys.transpose(0, 1).unsqueeze(0),
        values.transpose(0, 1).unsqueeze(0),
        attn_mask=mask if is_causal else None,
        enable_gqa=True,
    )
    return gathered[0].transpose(0, 1).flatten(1)
