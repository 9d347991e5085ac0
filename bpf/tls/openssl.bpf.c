/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* OpenSSL 1.1.1 and 3, and libraries with its interface (BoringSSL, LibreSSL), shared or inside a program.
 *
 * autotrace/probes/libraries/openssl.toml says which program stands at the entry and which at the return of which
 * function. SSL_peek needs none: it consumes nothing, and what it makes the library read from the socket is bound
 * as any other. So do SSL_connect and SSL_accept, which call SSL_do_handshake.
 */
#include "tls.h"

#define SSL_EARLY_DATA_REJECTED 1 /* include/openssl/ssl.h */
#define LOWEST_ADDRESS 4096	  /* nothing is mapped in the first page */

/* Keeps the types of abi.h in the object's BTF; see struct at_abi. */
const struct at_abi *const volatile abi_types = 0;

/* SSL *SSL_new(SSL_CTX *ctx) */
SEC("uprobe")
int ssl_new_returns(struct pt_regs *ctx)
{
	session_begins(ARCH_RESULT(ctx));
	return 0;
}

/* void SSL_free(SSL *ssl) */
SEC("uprobe")
int ssl_free_enters(struct pt_regs *ctx)
{
	session_ends(ARCH_PARAM0(ctx));
	return 0;
}

/* int SSL_do_handshake(SSL *ssl), int SSL_shutdown(SSL *ssl) */
SEC("uprobe")
int ssl_control_enters(struct pt_regs *ctx)
{
	tls_call_begins(ARCH_PARAM0(ctx), TLS_CALL(ctx, TLS_NO_BYTES), 0, 0, 0);
	return 0;
}

/* int SSL_read(SSL *ssl, void *buf, int num) */
SEC("uprobe")
int ssl_read_enters(struct pt_regs *ctx)
{
	tls_call_begins(ARCH_PARAM0(ctx), TLS_CALL(ctx, AT_RX), ARCH_PARAM1(ctx), (__u32)ARCH_PARAM2(ctx), 0);
	return 0;
}

/* int SSL_read_ex(SSL *ssl, void *buf, size_t num, size_t *readbytes) */
SEC("uprobe")
int ssl_read_ex_enters(struct pt_regs *ctx)
{
	tls_call_begins(ARCH_PARAM0(ctx), TLS_CALL(ctx, AT_RX), ARCH_PARAM1(ctx), ARCH_PARAM2(ctx),
			ARCH_PARAM3(ctx));
	return 0;
}

/* int SSL_write(SSL *ssl, const void *buf, int num) */
SEC("uprobe")
int ssl_write_enters(struct pt_regs *ctx)
{
	tls_write_begins(ARCH_PARAM0(ctx), TLS_CALL(ctx, AT_TX), ARCH_PARAM1(ctx), (__u32)ARCH_PARAM2(ctx),
			 0);
	return 0;
}

/* int SSL_write_ex(SSL *ssl, const void *buf, size_t num, size_t *written),
 * int SSL_write_ex2(SSL *ssl, const void *buf, size_t num, uint64_t flags, size_t *written): no flag is as large as an
 * address. */
SEC("uprobe")
int ssl_write_ex_enters(struct pt_regs *ctx)
{
	__u64 done = ARCH_PARAM3(ctx);

	if (done < LOWEST_ADDRESS)
		done = ARCH_PARAM4(ctx);
	tls_write_begins(ARCH_PARAM0(ctx), TLS_CALL(ctx, AT_TX), ARCH_PARAM1(ctx), ARCH_PARAM2(ctx), done);
	return 0;
}

/* ossl_ssize_t SSL_sendfile(SSL *ssl, int fd, off_t offset, size_t size, int flags): the kernel encrypts. */
SEC("uprobe")
int ssl_sendfile_enters(struct pt_regs *ctx)
{
	tls_call_begins(ARCH_PARAM0(ctx), TLS_CALL(ctx, AT_TX), 0, ARCH_PARAM3(ctx), 0);
	return 0;
}

/* int SSL_read_early_data(SSL *ssl, void *buf, size_t num, size_t *readbytes): calls SSL_accept and SSL_read_ex */
SEC("uprobe")
int ssl_read_early_data_enters(struct pt_regs *ctx)
{
	tls_call_begins(ARCH_PARAM0(ctx), TLS_CALL(ctx, AT_RX), ARCH_PARAM1(ctx), ARCH_PARAM2(ctx),
			ARCH_PARAM3(ctx));
	tls_call_is_outer();
	return 0;
}

/* int SSL_write_early_data(SSL *ssl, const void *buf, size_t num, size_t *written): calls SSL_connect and SSL_write_ex,
 * and sends what they made only then. */
SEC("uprobe")
int ssl_write_early_data_enters(struct pt_regs *ctx)
{
	tls_write_begins(ARCH_PARAM0(ctx), TLS_CALL(ctx, AT_TX), ARCH_PARAM1(ctx), ARCH_PARAM2(ctx),
			 ARCH_PARAM3(ctx));
	tls_call_is_outer();
	return 0;
}

/* int SSL_get_early_data_status(const SSL *ssl) */
SEC("uprobe")
int ssl_early_data_status_enters(struct pt_regs *ctx)
{
	tls_early_data_asked(ARCH_PARAM0(ctx));
	return 0;
}

SEC("uprobe")
int ssl_early_data_status_returns(struct pt_regs *ctx)
{
	if ((__s32)ARCH_RESULT(ctx) == SSL_EARLY_DATA_REJECTED)
		tls_early_data_refused();
	return 0;
}

/* The return of any of the others. Results of 32 bits have their sign there; that of SSL_sendfile is no larger, because
 * the kernel moves less at a time (MAX_RW_COUNT). */
SEC("uprobe")
int ssl_call_returns(struct pt_regs *ctx)
{
	tls_call_ends((__s32)ARCH_RESULT(ctx), ARCH_STACK_RETURNED(ctx));
	return 0;
}

/* The helpers used (bpf_probe_read_*, bpf_ringbuf_*) are for GPL-compatible programs only. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";
