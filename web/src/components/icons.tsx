// The page's icons: strokes on a 24-unit grid in the text's own colour. They carry no meaning for a
// screen reader; the button around one has the label.
import type { ReactNode } from "react";

function icon(strokes: ReactNode) {
  return function Icon({ className = "size-4.5" }: { readonly className?: string }) {
    return (
      <svg
        viewBox="0 0 24 24"
        fill="none"
        stroke="currentColor"
        strokeWidth="1.75"
        strokeLinecap="round"
        strokeLinejoin="round"
        aria-hidden="true"
        className={className}
      >
        {strokes}
      </svg>
    );
  };
}

export const SendIcon = icon(<path d="M12 19V5M5.5 11.5 12 5l6.5 6.5" />);
export const StopIcon = icon(
  <rect x="7" y="7" width="10" height="10" rx="2" fill="currentColor" />,
);
export const NewChatIcon = icon(
  <>
    <path d="M11 4.5H6.5a2 2 0 0 0-2 2v11a2 2 0 0 0 2 2h11a2 2 0 0 0 2-2V13" />
    <path d="M18.3 3.9a1.9 1.9 0 0 1 2.7 2.7l-8 8-3.5.9.9-3.5z" />
  </>,
);
export const SunIcon = icon(
  <>
    <circle cx="12" cy="12" r="4" />
    <path d="M12 3v1.5M12 19.5V21M3 12h1.5M19.5 12H21M5.6 5.6l1.1 1.1M17.3 17.3l1.1 1.1M5.6 18.4l1.1-1.1M17.3 6.7l1.1-1.1" />
  </>,
);
export const MoonIcon = icon(<path d="M20 14.2A8 8 0 0 1 9.8 4a8.2 8.2 0 1 0 10.2 10.2z" />);
export const CopyIcon = icon(
  <>
    <rect x="9" y="9" width="11" height="11" rx="2.5" />
    <path d="M15 9V6.5A2.5 2.5 0 0 0 12.5 4h-6A2.5 2.5 0 0 0 4 6.5v6A2.5 2.5 0 0 0 6.5 15H9" />
  </>,
);
export const CheckIcon = icon(<path d="m5 12.5 4.5 4.5L19 7.5" />);
export const RetryIcon = icon(<path d="M4.5 12a7.5 7.5 0 1 0 2.4-5.5L4.5 8.7M4.5 4.5v4.2h4.2" />);
export const ChevronIcon = icon(<path d="m9 6 6 6-6 6" />);
export const ArrowDownIcon = icon(<path d="M12 5v14M5.5 12.5 12 19l6.5-6.5" />);
export const WarningIcon = icon(
  <>
    <circle cx="12" cy="12" r="8.5" />
    <path d="M12 7.8v5M12 16.2v.01" />
  </>,
);
