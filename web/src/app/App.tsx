// The page as a whole: joins access, models, settings and the chat, which do not know each other.
import { useEffect } from "react";
import { useTranslation } from "react-i18next";
import { Button, IconButton } from "@/components/Button";
import { Logo } from "@/components/Logo";
import { NewChatIcon } from "@/components/icons";
import { KeyDialog } from "@/features/access/KeyDialog";
import { useAccess } from "@/features/access/useAccess";
import { ChatView } from "@/features/chat/ChatView";
import { FaultNote } from "@/features/chat/FaultNote";
import { useChat } from "@/features/chat/useChat";
import { ModelSelect } from "@/features/models/ModelSelect";
import { useModels } from "@/features/models/useModels";
import { LanguageSwitch } from "@/features/settings/LanguageSwitch";
import { ThemeToggle } from "@/features/settings/ThemeToggle";

export function App() {
  const { t } = useTranslation();
  const access = useAccess();
  const { apiKey, reject } = access;
  const models = useModels(apiKey);
  const chat = useChat(apiKey, reject);
  const isRefused = models.fault?.kind === "unauthorized";
  useEffect(() => {
    if (isRefused && apiKey !== null) reject(apiKey);
  }, [isRefused, apiKey, reject]);

  return (
    <div className="flex h-dvh flex-col">
      <header className="flex h-14 shrink-0 items-center gap-1 px-3 sm:px-4">
        <Logo className="mr-1 size-7 shrink-0" />
        <span className="mr-2 text-[0.95rem] font-semibold tracking-tight max-sm:sr-only">
          Freehold
        </span>
        <ModelSelect models={models} />
        <div className="ml-auto flex items-center">
          <IconButton label={t("newChat")} onClick={chat.clear} disabled={chat.turns.length === 0}>
            <NewChatIcon />
          </IconButton>
          <LanguageSwitch />
          <ThemeToggle />
        </div>
      </header>
      <ChatView
        chat={chat}
        model={apiKey === null ? null : models.chosen}
        notice={
          apiKey === null ? (
            <Notice text={t("noKey")} action={t("enterKey")} onAct={access.ask} />
          ) : models.fault !== null && !isRefused ? (
            <FaultNote fault={models.fault} onRetry={models.retry} />
          ) : models.isEmpty ? (
            <Notice text={t("noModels")} action={t("retry")} onAct={models.retry} />
          ) : null
        }
      />
      {access.isAsking && <KeyDialog access={access} />}
    </div>
  );
}

interface NoticeProps {
  readonly text: string;
  readonly action: string;
  readonly onAct: () => void;
}

function Notice({ text, action, onAct }: NoticeProps) {
  return (
    <div className="mb-3 flex items-center justify-between gap-3 rounded-xl border border-line bg-surface py-2 pr-2 pl-4 text-sm">
      <p>{text}</p>
      <Button onClick={onAct}>{action}</Button>
    </div>
  );
}
