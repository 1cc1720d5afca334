/** The two factors of an optimiser at each step, as in gradlab/lab/optimizers.py: (steps, 2). */

const ADAM: readonly [number, number] = [0.9, 0.999];

export const FACTORS: Record<string, (learningRate: number, step: number) => [number, number]> = {
  adam: (rate, step) => [rate / (1 - ADAM[0] ** step), (1 - ADAM[1] ** step) ** -0.5],
  gd: (rate) => [rate, 1],
};

export function factorsOf(optimizer: string): (learningRate: number, step: number) => [number, number] {
  const factors = Object.hasOwn(FACTORS, optimizer) ? FACTORS[optimizer] : undefined;
  if (!factors) throw new Error(`optimizer must be one of ${Object.keys(FACTORS).join(", ")}, got "${optimizer}"`);
  return factors;
}
