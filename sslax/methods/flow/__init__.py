"""Methods that learn optical flow, one file each.

Shared code: `method` (the loss of one or two passes, and the rest of a `Method`), `matching`
(warping and occlusion), `resolution` (levels and iterations of a network's output), `terms`,
`self_supervision`, and `from_config`.
"""
