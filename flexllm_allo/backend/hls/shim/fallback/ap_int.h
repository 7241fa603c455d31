// SPDX-License-Identifier: Apache-2.0
// Found only where no ap_int.h is installed: enough for programs whose types are all native.
