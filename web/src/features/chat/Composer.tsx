// Where a question is written. Enter sends, Shift+Enter breaks the line, and an Enter that belongs to
// an input method (Chinese, Japanese, Korean) never sends. It does not know where the question goes.
import { useRef, useState, type FormEvent, type KeyboardEvent } from "react";
import { useTranslation } from "react-i18next";
import { classes } from "@/lib/classes";
import { SendIcon, StopIcon } from "@/components/icons";

interface ComposerProps {
  readonly isAnswering: boolean;
  readonly canAsk: boolean;
  readonly onAsk: (question: string) => void;
  readonly onStop: () => void;
}

const IME_KEY_CODE = 229; // what Safari reports for the Enter that ends a composition

export function Composer({ isAnswering, canAsk, onAsk, onStop }: ComposerProps) {
  const { t } = useTranslation();
  const [draft, setDraft] = useState("");
  const input = useRef<HTMLTextAreaElement>(null);
  const isReady = canAsk && draft.trim() !== "";

  const send = () => {
    if (!isReady || isAnswering) return;
    onAsk(draft.trim());
    setDraft("");
  };
  const submit = (event: FormEvent) => {
    event.preventDefault();
    send();
    input.current?.focus();
  };
  const pressKey = (event: KeyboardEvent<HTMLTextAreaElement>) => {
    const isComposing = event.nativeEvent.isComposing || event.keyCode === IME_KEY_CODE;
    if (isComposing) return;
    if (event.key === "Escape" && isAnswering) onStop();
    if (event.key !== "Enter" || event.shiftKey) return;
    event.preventDefault();
    send();
  };

  return (
    <form
      onSubmit={submit}
      className="composer flex items-end gap-2 rounded-3xl border border-line bg-surface p-2 shadow-soft"
    >
      <label className="min-w-0 flex-1">
        <span className="sr-only">{t("question")}</span>
        <textarea
          ref={input}
          value={draft}
          rows={1}
          // oxlint-disable-next-line jsx-a11y/no-autofocus -- writing is what the page is for
          autoFocus
          placeholder={t("askPlaceholder")}
          onChange={(event) => setDraft(event.target.value)}
          onKeyDown={pressKey}
          enterKeyHint="send"
          className="growing block max-h-48 w-full resize-none bg-transparent px-3 py-2 leading-6 outline-none placeholder:text-muted"
        />
      </label>
      {isAnswering ? (
        <RoundButton key="stop" label={t("stop")} onClick={onStop}>
          <StopIcon className="size-5" />
        </RoundButton>
      ) : (
        <RoundButton key="send" label={t("send")} isSubmit isDisabled={!isReady}>
          <SendIcon className="size-5" />
        </RoundButton>
      )}
    </form>
  );
}

interface RoundButtonProps {
  readonly label: string;
  readonly isSubmit?: boolean;
  readonly isDisabled?: boolean;
  readonly onClick?: () => void;
  readonly children: React.ReactNode;
}

function RoundButton(props: RoundButtonProps) {
  return (
    <button
      // oxlint-disable-next-line react/button-has-type -- one of the two
      type={props.isSubmit === true ? "submit" : "button"}
      aria-label={props.label}
      title={props.label}
      disabled={props.isDisabled}
      onClick={props.onClick}
      className={classes(
        "flex size-10 shrink-0 cursor-pointer items-center justify-center rounded-full transition-colors",
        "bg-accent text-on-accent hover:bg-accent-strong",
        "disabled:cursor-default disabled:bg-hover disabled:text-muted",
      )}
    >
      {props.children}
    </button>
  );
}
