"""Settings of a Freehold house: one `freehold.toml`, environment over it, flags over both.

Environment names are FREEHOLD_<FIELD>. Knows no process and no file but the toml. What each
process takes from here is decided in `cli/`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from freehold.errors import ConfigError
from freehold.types import CacheFormat, Speculate, WeightFormat


def shipped_model() -> Path:
    """The directory of freehold-nano, the small model inside the package."""
    return Path(__file__).parent / "models" / "nano"


class Settings(BaseSettings):
    """Every setting, its default and its bound."""

    model_config = SettingsConfigDict(env_prefix="FREEHOLD_", extra="forbid")

    home: Path = Field(Path("~/.freehold"), description="Where keys and state are kept.")
    model: Path = Field(default_factory=shipped_model, description="A checkpoint directory.")
    name: str | None = Field(
        None, min_length=1, max_length=128, description="The model's public name; its directory's."
    )
    quantize: WeightFormat = Field(
        WeightFormat.BF16, description="How weights are held in memory: bf16, int8 or int4."
    )
    kv_cache_format: CacheFormat = Field(
        CacheFormat.BF16, description="How the cache holds keys and values: bf16 or int8."
    )
    ops: Literal["auto", "native", "reference"] = Field("auto", description="Compute backend.")
    threads: int = Field(0, ge=0, le=1024, description="Kernel threads; 0: one a core.")
    context: int | None = Field(
        None, ge=16, le=10_000_000, description="Longest context served; the model's own if unset."
    )
    keep_packed: bool = Field(
        True, description="Keep packed weights beside the checkpoint for a quick next start."
    )
    prefix_store_gib: float = Field(
        1.0,
        ge=0,
        le=10_000,
        description="Disk for prompts' beginnings that came twice, kept across restarts; 0: none.",
    )
    speculate: Speculate = Field(
        Speculate.AUTO,
        description="Guess ahead for speed, same answers: off, lookup, mtp or auto.",
    )
    host: str = Field("127.0.0.1", description="Address the gateway listens on.")
    port: int = Field(8080, ge=0, le=65535, description="Port the gateway listens on; 0: any.")
    workers: int = Field(1, ge=1, le=64, description="Workers started on this machine.")
    max_queue: int = Field(256, ge=1, le=100_000, description="Requests that may wait.")

    @property
    def public_name(self) -> str:
        """The name clients ask for."""
        if self.name:
            return self.name
        is_shipped = self.model.resolve() == shipped_model().resolve()
        return "freehold-nano" if is_shipped else self.model.resolve().name

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        toml = Path(os.environ.get("FREEHOLD_CONFIG", "freehold.toml"))
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml)


def load_settings(**flags: Any) -> Settings:
    """Settings with the given flags (None: not given) over environment and freehold.toml.

    Raises ConfigError with the field, what was wrong with it and where it may be set.
    """
    try:
        settings = Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "settings"
        raise ConfigError(
            f"Setting '{field}' is wrong: {first['msg']}. Set it by flag, by "
            f"FREEHOLD_{field.upper()} or in freehold.toml.",
            param=field,
        ) from None
    except ValueError as error:  # a freehold.toml that is no TOML
        raise ConfigError(f"freehold.toml cannot be read: {error}.") from None
    return settings.model_copy(update={"home": settings.home.expanduser()})
