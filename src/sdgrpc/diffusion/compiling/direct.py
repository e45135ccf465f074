"""diffusers' blocks without what changes nothing, for networks that are called as they are.

Each computes what the class does that it stands in for. Left out are divisions by 1, fresh memory for sums,
and changes of layout: diffusers brings a picture out of channels last after each transformer and where it
adds the timestep, and the next convolution brings it back. Group norms then add up in another order, so that
answers differ by what rounding does. A block that is set up in any other way keeps its class.
"""

from __future__ import annotations

from typing import Any

from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn
from torch.nn import functional as F

from sdgrpc.machine.onednn.attention import attend
from sdgrpc.machine.onednn.packing import turned


class DirectResnetBlock(ResnetBlock2D):  # type: ignore[misc]
    """A residual block that keeps the size, adds the timestep, and is not scaled."""

    def forward(self, input_tensor: Tensor, temb: Tensor | None, *_: Any, **__: Any) -> Tensor:  # noqa: ANN401
        """Return `(rows, out, height, width)` of `(rows, in, height, width)`."""
        hidden: Tensor = self.conv1(F.silu(self.norm1(input_tensor), inplace=True))
        if temb is not None and self.time_emb_proj is not None:
            hidden += self.time_emb_proj(F.silu(temb))[:, :, None, None]
        hidden = self.conv2(F.silu(self.norm2(hidden), inplace=True))
        hidden += input_tensor if self.conv_shortcut is None else self.conv_shortcut(input_tensor)
        return hidden

    @staticmethod
    def fits(block: ResnetBlock2D) -> bool:
        """Whether a block is such a one."""
        return (
            block.upsample is None
            and block.downsample is None
            and block.time_embedding_norm == "default"
            and not block.skip_time_act
            and isinstance(block.nonlinearity, nn.SiLU)
            and block.output_scale_factor == 1.0
        )


class DirectAttention(Attention):  # type: ignore[misc]
    """Attention among tokens or to a prompt, without masks, norms of its own or a residual."""

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **others: Any,  # noqa: ANN401
    ) -> Tensor:
        """Return `(rows, tokens, channels)` of the same; `encoder_hidden_states` is `(rows, T, D)`."""
        if attention_mask is not None or others or hidden_states.ndim != 3:
            answer: Tensor = super().forward(hidden_states, encoder_hidden_states, attention_mask, **others)
            return answer
        told = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = self.to_q(hidden_states), self.to_k(told), self.to_v(told)
        projected: Tensor = self.to_out[0](attend(query, key, value, self.heads))
        return projected

    @staticmethod
    def fits(attention: Attention) -> bool:
        """Whether a layer is such a one."""
        norms = (attention.spatial_norm, attention.group_norm, attention.norm_q, attention.norm_k)
        return (
            type(attention.processor) is AttnProcessor2_0
            and all(norm is None for norm in norms)
            and not attention.norm_cross
            and not attention.residual_connection
            and attention.rescale_output_factor == 1.0
        )


class DirectPictureAttention(Attention):  # type: ignore[misc]
    """Attention among a picture's pixels after a group norm, added to the picture, as VAEs have it."""

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:  # noqa: ANN401
        """Return `(rows, channels, height, width)` of the same."""
        pixels = self.group_norm(hidden_states.flatten(2)).transpose(1, 2).contiguous()
        query, key, value = self.to_q(pixels), self.to_k(pixels), self.to_v(pixels)
        projected: Tensor = self.to_out[0](attend(query, key, value, self.heads))
        return projected.transpose(1, 2).reshape(hidden_states.shape).add_(hidden_states)

    @staticmethod
    def fits(attention: Attention) -> bool:
        """Whether a layer is such a one."""
        norms = (attention.spatial_norm, attention.norm_q, attention.norm_k)
        return (
            type(attention.processor) is AttnProcessor2_0
            and attention.group_norm is not None
            and all(norm is None for norm in norms)
            and not attention.norm_cross
            and attention.residual_connection
            and attention.rescale_output_factor == 1.0
        )


class DirectTransformerBlock(BasicTransformerBlock):  # type: ignore[misc]
    """Attention among tokens, to the prompt, and a feed forward, each after a layer norm and added."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        **_: Any,  # noqa: ANN401
    ) -> Tensor:
        """Return `(rows, tokens, channels)` of the same."""
        states = self.attn1(self.norm1(hidden_states), attention_mask=attention_mask)
        states += hidden_states
        told = self.attn2(self.norm2(states), encoder_hidden_states, attention_mask=encoder_attention_mask)
        told += states
        answer: Tensor = self.ff(self.norm3(told))
        answer += told
        return answer

    @staticmethod
    def fits(block: BasicTransformerBlock) -> bool:
        """Whether a block is such a one."""
        return (
            block.norm_type == "layer_norm"
            and not block.only_cross_attention
            and block.attn2 is not None
            and block.pos_embed is None
            and block._chunk_size is None
            and not hasattr(block, "fuser")
        )


class DirectTransformer(Transformer2DModel):  # type: ignore[misc]
    """Transformer blocks on a picture, which stays channels last on its way in and out."""

    def _get_output_for_continuous_inputs(
        self,
        hidden_states: Tensor,
        residual: Tensor,
        batch_size: int,
        height: int,
        width: int,
        inner_dim: int,
    ) -> Tensor:
        if self.use_linear_projection:
            hidden_states = self.proj_out(hidden_states)
        picture = hidden_states.reshape(batch_size, height, width, inner_dim).permute(0, 3, 1, 2)
        output: Tensor = picture if self.use_linear_projection else self.proj_out(picture)
        return output.add_(residual)

    @staticmethod
    def fits(transformer: Transformer2DModel) -> bool:
        """Whether it takes a picture."""
        return bool(transformer.is_input_continuous)


class DirectGEGLU(GEGLU):  # type: ignore[misc]
    """A gated linear unit."""

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:  # noqa: ANN401
        """Return `(rows, tokens, out)`."""
        states, gate = self.proj(hidden_states).chunk(2, dim=-1)
        return F.gelu(gate).mul_(states)

    @staticmethod
    def fits(_: GEGLU) -> bool:
        """Every one does."""
        return True


DIRECT: dict[type[nn.Module], tuple[Any, ...]] = {
    ResnetBlock2D: (DirectResnetBlock,),
    Attention: (DirectAttention, DirectPictureAttention),
    BasicTransformerBlock: (DirectTransformerBlock,),
    Transformer2DModel: (DirectTransformer,),
    GEGLU: (DirectGEGLU,),
}


def make_direct(network: nn.Module) -> None:
    """Give the blocks of a network in `eval()` mode their direct classes, where they fit."""
    for module in network.modules():
        for direct in DIRECT.get(type(module), ()):
            if direct.fits(module):
                turned(module, direct)
                break


def make_usual(network: nn.Module) -> None:
    """Undo `make_direct`."""
    usual = {direct: kind for kind, every in DIRECT.items() for direct in every}
    for module in network.modules():
        if type(module) in usual:
            turned(module, usual[type(module)])
