"""Layers that know no task, one idea a file.

Where a library's own layer is the thing it is used as it is, and a test states what it does. A depthwise convolution is
``nn.Conv2d(c, c, 3, groups=c)``; grouped, dilated and pointwise ones are ``groups``, ``dilation`` and kernel 1 (all are
arguments of `torso.nn.conv.ConvNormAct`); channel shuffle is ``nn.ChannelShuffle``; global average pooling is
``nn.AdaptiveAvgPool2d(1)``; unpooling by copy is ``nn.MaxUnpool2d`` with the indices of
``nn.MaxPool2d(return_indices=True)`` and ``output_size`` where sides are odd; self-, cross- and multi-head attention is
``nn.MultiheadAttention(batch_first=True)`` over `torch.nn.functional.scaled_dot_product_attention`.
"""
