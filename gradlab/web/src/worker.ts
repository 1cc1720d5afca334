/** The code of a worker: it trains one job after another, and drops those that are stopped. */

import { type Answer, type Question, Trainer } from "./job";

const scope = globalThis as unknown as {
  onmessage: (event: MessageEvent<Question>) => void;
  postMessage: (answer: Answer, moved?: Transferable[]) => void;
};
const trainer = new Trainer();
const stopped = new Set<number>();

scope.onmessage = async ({ data }) => {
  if ("stop" in data) {
    stopped.add(data.number);
    return;
  }
  const { number, job } = data;
  try {
    const logp = await trainer.run(job, () => stopped.has(number));
    if (logp) scope.postMessage({ number, logp }, [logp.buffer]);
    else scope.postMessage({ number, error: "stopped" });
  } catch (error) {
    scope.postMessage({ number, error: (error as Error).message });
  }
  stopped.delete(number);
};
