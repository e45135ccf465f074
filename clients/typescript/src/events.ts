/** What a job tells, in order. */

import type {
  Accepted,
  Finished,
  GeneratedImage,
  JobEvent,
  Prepared,
  Progress,
} from "./gen/sdgrpc/v1/diffusion_pb.js";

interface About<Kind extends string, Value> {
  readonly kind: Kind;
  /** The request's, or one that the server made. */
  readonly requestId: string;
  /** 0, 1, 2 … in a job; previews that a slow reader missed leave gaps. */
  readonly sequence: bigint;
  readonly value: Value;
}

/** One of the five, told apart by `kind`; `value` is the contract's message. */
export type Event =
  | About<"accepted", Accepted>
  | About<"prepared", Prepared>
  | About<"progress", Progress>
  | About<"image", GeneratedImage>
  | About<"finished", Finished>;

/** A finished job. */
export interface Result {
  readonly accepted: Accepted | undefined;
  readonly prepared: Prepared | undefined;
  /** In the order of their index. */
  readonly images: readonly GeneratedImage[];
  readonly finished: Finished;
}

/** Types a message; undefined for an event of a newer contract. */
export function eventOf(message: JobEvent): Event | undefined {
  const { requestId, sequence, event } = message;
  return event.case && ({ kind: event.case, requestId, sequence, value: event.value } as Event);
}

/** Keeps what a result is made of. */
export class Collector {
  #accepted: Accepted | undefined;
  #prepared: Prepared | undefined;
  #finished: Finished | undefined;
  readonly #images: GeneratedImage[] = [];

  take(event: Event): void {
    switch (event.kind) {
      case "accepted":
        this.#accepted = event.value;
        break;
      case "prepared":
        this.#prepared = event.value;
        break;
      case "image":
        this.#images.push(event.value);
        break;
      case "finished":
        this.#finished = event.value;
        break;
      case "progress":
        break;
    }
  }

  /** Undefined before the last event. */
  result(): Result | undefined {
    return (
      this.#finished && {
        accepted: this.#accepted,
        prepared: this.#prepared,
        images: this.#images.toSorted((one, other) => one.index - other.index),
        finished: this.#finished,
      }
    );
  }
}
