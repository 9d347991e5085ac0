"""What can be read from programs on disk: ELF sections, BTF types, Go build information and layouts.

A leaf package: it never imports `autotrace`.
"""
