// The mark of Freehold: a house with an F for its door.

export function Logo({ className = "size-7" }: { readonly className?: string }) {
  return (
    <svg viewBox="0 0 32 32" aria-hidden="true" className={className}>
      <rect width="32" height="32" rx="8" className="fill-accent" />
      <g
        fill="none"
        strokeWidth="2.4"
        strokeLinecap="round"
        strokeLinejoin="round"
        className="stroke-on-accent"
      >
        <path d="M8 23V14.5L16 8l8 6.5V23" />
        <path d="M12.6 23v-6.2h5.6M12.6 20h4.4" />
      </g>
    </svg>
  );
}
