// Chooses the model: the browser's own list, so that it works with a keyboard and on a telephone.
import { useTranslation } from "react-i18next";
import { ChevronIcon } from "@/components/icons";
import type { Models } from "./useModels";

export function ModelSelect({ models }: { readonly models: Models }) {
  const { t } = useTranslation();
  if (models.chosen === null) return null;
  return (
    <div className="relative flex min-w-0 items-center">
      <select
        aria-label={t("model")}
        value={models.chosen}
        onChange={(event) => models.choose(event.target.value)}
        className="fitting h-9 max-w-56 min-w-0 cursor-pointer appearance-none truncate rounded-lg bg-transparent pr-8 pl-2.5 text-sm font-medium text-ink hover:bg-hover"
      >
        {models.list.map(({ id }) => (
          <option key={id} value={id} className="bg-surface text-ink">
            {id}
          </option>
        ))}
      </select>
      <ChevronIcon className="pointer-events-none absolute right-2.5 size-3.5 rotate-90 text-muted" />
    </div>
  );
}
