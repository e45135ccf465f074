/** The contract's messages, enums and services, as they are generated. */

export * from "./gen/sdgrpc/v1/catalog_pb.js";
export * from "./gen/sdgrpc/v1/cluster_pb.js";
export * from "./gen/sdgrpc/v1/diffusion_pb.js";
export * from "./gen/sdgrpc/v1/jobs_pb.js";
