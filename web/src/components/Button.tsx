// The buttons of the page, in the three weights it needs. It does not know what they do.
import type { ComponentProps } from "react";
import { classes } from "@/lib/classes";

const LOOKS = {
  primary: "bg-accent text-on-accent hover:bg-accent-strong px-4 h-10 rounded-xl",
  outline: "border border-line bg-surface hover:bg-hover px-3 h-9 rounded-lg",
  ghost: "text-muted hover:text-ink hover:bg-hover px-2.5 h-9 rounded-lg",
} as const;

interface ButtonProps extends ComponentProps<"button"> {
  readonly look?: keyof typeof LOOKS;
}

export function Button({ look = "outline", className, type = "button", ...rest }: ButtonProps) {
  return (
    <button
      // oxlint-disable-next-line react/button-has-type -- "button" unless the caller says "submit"
      type={type}
      className={classes(
        "inline-flex shrink-0 cursor-pointer items-center justify-center gap-1.5 text-sm font-medium",
        "transition-colors disabled:cursor-not-allowed disabled:opacity-40",
        LOOKS[look],
        className,
      )}
      {...rest}
    />
  );
}

interface IconButtonProps extends ComponentProps<"button"> {
  /** What the button does, for a screen reader and as a tooltip. */
  readonly label: string;
}

export function IconButton({ label, className, ...rest }: IconButtonProps) {
  return (
    <Button
      look="ghost"
      aria-label={label}
      title={label}
      className={classes("size-9 px-0!", className)}
      {...rest}
    />
  );
}
