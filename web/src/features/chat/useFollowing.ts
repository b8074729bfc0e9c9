// Keeps the end of a growing conversation in view, until the reader scrolls away from it.
import { useCallback, useLayoutEffect, useRef, useState, type RefObject } from "react";

const NEAR_END_PX = 64;

export interface Following {
  readonly scroller: RefObject<HTMLDivElement | null>;
  /** The reader has scrolled away from the end. */
  readonly isAway: boolean;
  readonly onScroll: () => void;
  readonly toEnd: () => void;
}

/** Follows the end of what is drawn; `numTurns` going up returns the reader to it. */
export function useFollowing(numTurns: number): Following {
  const scroller = useRef<HTMLDivElement>(null);
  const isFollowing = useRef(true);
  const lastNumTurns = useRef(numTurns);
  const [isAway, setIsAway] = useState(false);

  const toEnd = useCallback(() => {
    isFollowing.current = true;
    setIsAway(false);
    scroller.current?.scrollTo({ top: scroller.current.scrollHeight });
  }, []);
  const onScroll = useCallback(() => {
    const element = scroller.current;
    if (element === null) return;
    const rest = element.scrollHeight - element.scrollTop - element.clientHeight;
    isFollowing.current = rest < NEAR_END_PX;
    setIsAway(!isFollowing.current);
  }, []);
  useLayoutEffect(() => {
    if (numTurns > lastNumTurns.current || isFollowing.current) toEnd();
    lastNumTurns.current = numTurns;
  }); // after every drawing: new tokens are what moves the end
  return { scroller, isAway, onScroll, toEnd };
}
