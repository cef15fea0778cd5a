//! The short list of error codes, and the one place where they are gRPC's.

/// Why a call failed, as far as a program needs to know; the reason string says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request itself is wrong.
    InvalidArgument,
    /// The named object does not exist.
    NotFound,
    /// The name or key is taken.
    AlreadyExists,
    /// The object is in a state that forbids this.
    FailedPrecondition,
    /// Lost a race; read again and retry.
    Aborted,
    /// Disk, memory, addresses, ports or a limit ran out.
    ResourceExhausted,
    /// A tool or registry cannot be reached now.
    Unavailable,
    /// It took too long.
    DeadlineExceeded,
    /// Not built, or not on this kernel.
    Unimplemented,
    /// Not allowed to this caller.
    PermissionDenied,
    /// Credentials are missing or wrong.
    Unauthenticated,
    /// Stored or received data is damaged.
    DataLoss,
    /// The caller went away.
    Canceled,
    /// A defect, or the kernel said something unexpected.
    Internal,
}

const PAIRS: [(Code, tonic::Code); 14] = [
    (Code::InvalidArgument, tonic::Code::InvalidArgument),
    (Code::NotFound, tonic::Code::NotFound),
    (Code::AlreadyExists, tonic::Code::AlreadyExists),
    (Code::FailedPrecondition, tonic::Code::FailedPrecondition),
    (Code::Aborted, tonic::Code::Aborted),
    (Code::ResourceExhausted, tonic::Code::ResourceExhausted),
    (Code::Unavailable, tonic::Code::Unavailable),
    (Code::DeadlineExceeded, tonic::Code::DeadlineExceeded),
    (Code::Unimplemented, tonic::Code::Unimplemented),
    (Code::PermissionDenied, tonic::Code::PermissionDenied),
    (Code::Unauthenticated, tonic::Code::Unauthenticated),
    (Code::DataLoss, tonic::Code::DataLoss),
    (Code::Canceled, tonic::Code::Cancelled),
    (Code::Internal, tonic::Code::Internal),
];

impl From<Code> for tonic::Code {
    fn from(code: Code) -> Self {
        PAIRS.iter().find(|(ours, _)| *ours == code).map_or(tonic::Code::Internal, |(_, theirs)| *theirs)
    }
}

impl From<tonic::Code> for Code {
    fn from(code: tonic::Code) -> Self {
        PAIRS.iter().find(|(_, theirs)| *theirs == code).map_or(Code::Internal, |(ours, _)| *ours)
    }
}
