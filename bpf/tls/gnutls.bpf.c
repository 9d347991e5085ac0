/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* GnuTLS 3. autotrace/probes/libraries/gnutls.toml says which program stands where. */
#include "tls.h"

/* Keeps the types of abi.h in the object's BTF; see struct at_abi. */
const struct at_abi *const volatile abi_types = 0;

/* What a resumed send may move at most: it is called without the bytes that it goes on with. */
#define RESUMED_MAX (1 << 24)

/* void gnutls_deinit(gnutls_session_t session) */
SEC("uprobe")
int gnutls_deinit_enters(struct pt_regs *ctx)
{
	session_ends(ARCH_PARAM0(ctx));
	return 0;
}

/* int gnutls_handshake(gnutls_session_t session), int gnutls_bye(gnutls_session_t session, ...) */
SEC("uprobe")
int gnutls_control_enters(struct pt_regs *ctx)
{
	tls_call_begins(ARCH_PARAM0(ctx), TLS_CALL(ctx, TLS_NO_BYTES), 0, 0, 0);
	return 0;
}

/* ssize_t gnutls_record_recv(gnutls_session_t session, void *data, size_t data_size), gnutls_record_recv_seq */
SEC("uprobe")
int gnutls_recv_enters(struct pt_regs *ctx)
{
	tls_call_begins(ARCH_PARAM0(ctx), TLS_CALL(ctx, AT_RX), ARCH_PARAM1(ctx), ARCH_PARAM2(ctx), 0);
	return 0;
}

/* ssize_t gnutls_record_send2(gnutls_session_t session, const void *data, size_t data_size, ...), gnutls_record_send of
 * a library without it. After GNUTLS_E_AGAIN it may be called with no data: it then goes on with what it was given
 * before, which was captured before. Corked sends return at once; their bytes count as sent. */
SEC("uprobe")
int gnutls_send_enters(struct pt_regs *ctx)
{
	__u64 data = ARCH_PARAM1(ctx), size = ARCH_PARAM2(ctx);

	tls_write_begins(ARCH_PARAM0(ctx), TLS_CALL(ctx, AT_TX), data, data ? size : RESUMED_MAX, 0);
	return 0;
}

/* The return of any of them. */
SEC("uprobe")
int gnutls_call_returns(struct pt_regs *ctx)
{
	tls_call_ends((__s64)ARCH_RESULT(ctx), ARCH_STACK_RETURNED(ctx));
	return 0;
}

/* The helpers used (bpf_probe_read_*, bpf_ringbuf_*) are for GPL-compatible programs only. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";
