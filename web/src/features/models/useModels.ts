// The models that the gateway serves and the one that is chosen, remembered on this device.
import { useQuery } from "@tanstack/react-query";
import { useCallback, useState } from "react";
import { toFault, type Fault } from "@/api/errors";
import { fetchModels, type Model } from "@/api/models";
import { readStored, writeStored } from "@/lib/storage";

export interface Models {
  readonly list: readonly Model[];
  /** The chosen model's id: the remembered one while it is served, else the first. */
  readonly chosen: string | null;
  readonly fault: Fault | null;
  /** The gateway answered that it serves no model. */
  readonly isEmpty: boolean;
  choose(id: string): void;
  retry(): void;
}

const MAX_RETRIES = 2;

export function useModels(apiKey: string | null): Models {
  const query = useQuery({
    queryKey: ["models", apiKey],
    queryFn: ({ signal }) => fetchModels(apiKey ?? "", signal),
    enabled: apiKey !== null,
    retry: (numFailures, error) =>
      ["unreachable", "busy"].includes(toFault(error).kind) && numFailures < MAX_RETRIES,
    retryDelay: 400,
    staleTime: 30_000,
    networkMode: "always", // the gateway may be on this very machine: being offline is no obstacle
  });
  const [wanted, setWanted] = useState(() => readStored("local", "model"));
  const choose = useCallback((id: string) => {
    writeStored("local", "model", id);
    setWanted(id);
  }, []);
  const list = query.data ?? [];
  const chosen = list.find((model) => model.id === wanted) ?? list[0];
  return {
    list,
    chosen: chosen?.id ?? null,
    fault: query.isError ? toFault(query.error) : null,
    isEmpty: query.isSuccess && list.length === 0,
    choose,
    retry: () => void query.refetch(),
  };
}
