"Where a rule comes from: the settings that it was judged in, and the search that found it."
from dataclasses import dataclass

from ..match.judge.setting import Setting
from ..match.search.ladder import LadderResult


@dataclass
class Origin:
    "What a report tells of a rule beside its matches."
    settings: dict  # Name -> `Setting`, that which the matcher is going to work in first
    others: dict  # Name of each further setting -> {row: `HeldOut`} there
    ladder: LadderResult | None = None  # How the rule was found, with what each step added

    @property
    def main(self) -> str:
        "The name of the setting that the matcher is going to work in."
        return next(iter(self.settings))

    @property
    def setting(self) -> Setting:
        "The setting that the matcher is going to work in."
        return self.settings[self.main]

    def words(
        self,
        name: str,  # Of a setting
    ) -> str:
        "'In the catalogue: each of 463 listings looked up among 2,100'."
        setting = self.settings[name]
        return f'{name.capitalize()}: each of {len(setting):,} listings looked up among {setting.pool:,}'
