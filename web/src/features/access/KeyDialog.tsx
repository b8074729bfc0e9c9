// Asks for the API key, and says so when the last one was not accepted.
import { useId, useState, type FormEvent } from "react";
import { useTranslation } from "react-i18next";
import { Button } from "@/components/Button";
import { Dialog } from "@/components/Dialog";
import { isPossibleKey } from "./apiKey";
import type { Access } from "./useAccess";

interface KeyDialogProps {
  readonly access: Access;
}

export function KeyDialog({ access }: KeyDialogProps) {
  const { t } = useTranslation();
  const [key, setKey] = useState("");
  const [onDevice, setOnDevice] = useState(false);
  const [isMalformed, setIsMalformed] = useState(false);
  const inputId = useId();
  const problemId = useId();
  const problem = isMalformed ? t("key.malformed") : access.isRejected ? t("key.rejected") : null;

  const submit = (event: FormEvent) => {
    event.preventDefault();
    const trimmed = key.trim();
    if (isPossibleKey(trimmed)) access.enter(trimmed, onDevice);
    else setIsMalformed(true);
  };

  return (
    <Dialog title={t("key.title")} description={t("key.description")} onClose={access.dismiss}>
      <form onSubmit={submit} className="mt-5 flex flex-col gap-4" noValidate>
        <div className="flex flex-col gap-1.5">
          <label htmlFor={inputId} className="text-sm font-medium">
            {t("key.label")}
          </label>
          <input
            id={inputId}
            type="password"
            autoComplete="off"
            spellCheck={false}
            placeholder="fh-…"
            value={key}
            aria-invalid={problem !== null}
            aria-describedby={problem === null ? undefined : problemId}
            onChange={(event) => {
              setKey(event.target.value);
              setIsMalformed(false);
            }}
            className="h-11 rounded-xl border border-line bg-page px-3.5 font-mono text-sm placeholder:text-muted"
          />
          {problem !== null && (
            <p id={problemId} role="alert" className="text-sm text-danger">
              {problem}
            </p>
          )}
        </div>
        <label className="flex items-center gap-2.5 text-sm text-muted">
          <input
            type="checkbox"
            className="size-4 accent-accent"
            checked={onDevice}
            onChange={(event) => setOnDevice(event.target.checked)}
          />
          {t("key.remember")}
        </label>
        <Button type="submit" look="primary" disabled={key.trim() === ""} className="w-full">
          {t("key.submit")}
        </Button>
      </form>
    </Dialog>
  );
}
