// One clear sentence about what went wrong, and the way to try again.
import { useTranslation } from "react-i18next";
import type { Fault } from "@/api/errors";
import { Button } from "@/components/Button";
import { RetryIcon, WarningIcon } from "@/components/icons";

interface FaultNoteProps {
  readonly fault: Fault;
  /** Part of the answer had arrived before the fault. */
  readonly hasText?: boolean;
  readonly onRetry?: (() => void) | undefined;
}

export function FaultNote({ fault, hasText = false, onRetry }: FaultNoteProps) {
  const { t } = useTranslation();
  const isPartial = hasText && fault.kind === "connection_lost";
  const sentence =
    fault.kind === "refused" && fault.detail !== null
      ? fault.detail
      : t(isPartial ? "fault.connection_lost_partial" : `fault.${fault.kind}`);
  return (
    <div
      role="alert"
      className="my-3 flex flex-wrap items-center gap-x-3 gap-y-2 rounded-xl border border-danger/30 bg-danger/8 py-2 pr-2 pl-3.5 text-sm"
    >
      <WarningIcon className="size-4.5 shrink-0 text-danger" />
      <p className="min-w-40 flex-1 py-1 wrap-anywhere">{sentence}</p>
      {onRetry !== undefined && (
        <Button onClick={onRetry}>
          <RetryIcon className="size-4" />
          {t("retry")}
        </Button>
      )}
    </div>
  );
}
