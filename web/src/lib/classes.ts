// Joins CSS class names, leaving out what is false. It does not resolve conflicts between them.

export function classes(...names: readonly (string | false | null | undefined)[]): string {
  return names.filter(Boolean).join(" ");
}
