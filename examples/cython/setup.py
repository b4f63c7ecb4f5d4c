"""python setup.py build_ext --inplace"""

from Cython.Build import cythonize
from setuptools import Extension, setup

import pynn

setup(
    name="chain",
    ext_modules=cythonize(
        [
            Extension(
                "chain",
                ["chain.pyx"],
                include_dirs=[pynn.get_include()],
                extra_compile_args=["-O2"],
            )
        ]
    ),
)
