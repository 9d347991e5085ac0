import static io.grpc.stub.ServerCalls.asyncBidiStreamingCall;
import static io.grpc.stub.ServerCalls.asyncClientStreamingCall;
import static io.grpc.stub.ServerCalls.asyncServerStreamingCall;
import static io.grpc.stub.ServerCalls.asyncUnaryCall;

import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.ConnectivityState;
import io.grpc.HandlerRegistry;
import io.grpc.InsecureChannelCredentials;
import io.grpc.InsecureServerCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.MethodDescriptor.MethodType;
import io.grpc.ServerCallHandler;
import io.grpc.ServerMethodDefinition;
import io.grpc.Status;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.StreamObserver;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.PrintStream;
import java.io.FileOutputStream;
import java.io.UncheckedIOException;
import java.net.InetSocketAddress;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

/**
 * Peer server PORT LOG, or Peer client PORT LOG COUNT CONCURRENCY [KIND...].
 *
 * <p>The same as grpc_peer.py, of grpc-java on Netty: see there for the kinds of calls. Messages are plain bytes.
 */
final class Peer {
  private static final List<String> KINDS =
      List.of("unary", "server", "client", "both", "fail", "halfway", "slow", "cancel");

  private static final MethodDescriptor.Marshaller<byte[]> BYTES =
      new MethodDescriptor.Marshaller<>() {
        @Override
        public InputStream stream(byte[] value) {
          return new ByteArrayInputStream(value);
        }

        @Override
        public byte[] parse(InputStream stream) {
          try {
            return stream.readAllBytes();
          } catch (IOException error) {
            throw new UncheckedIOException(error);
          }
        }
      };

  /** What a method's name says. */
  private record Method(String name, String kind, int number) {
    static Method of(String name) {
      String[] parts = name.substring(name.lastIndexOf('/') + 1).split("-");
      return new Method(name, parts[0], Integer.parseInt(parts[1]));
    }

    boolean streamsRequests() {
      return kind.equals("client") || kind.equals("both");
    }

    boolean streamsResponses() {
      return kind.equals("server") || kind.equals("both") || kind.equals("halfway");
    }

    boolean neverAnswers() {
      return kind.equals("slow") || kind.equals("cancel");
    }

    Status status() {
      return Status.fromCodeValue(number % 16 + 1).withDescription("as asked");
    }

    MethodDescriptor<byte[], byte[]> descriptor() {
      MethodType type =
          streamsRequests()
              ? streamsResponses() ? MethodType.BIDI_STREAMING : MethodType.CLIENT_STREAMING
              : streamsResponses() ? MethodType.SERVER_STREAMING : MethodType.UNARY;
      return MethodDescriptor.newBuilder(BYTES, BYTES).setType(type).setFullMethodName(name).build();
    }
  }

  private final PrintStream log;

  private Peer(String path) throws IOException {
    log = new PrintStream(new FileOutputStream(path, true), true);
  }

  private void write(Method method, Status.Code status) {
    log.println("{\"method\": \"" + method.name() + "\", \"status\": \"" + status + "\"}");
  }

  private static byte[] message(char letter, int size) {
    byte[] message = new byte[size];
    Arrays.fill(message, (byte) letter);
    return message;
  }

  private void answer(Method method, StreamObserver<byte[]> responses) {
    byte[] message = message('r', 2 * method.number());
    if (method.neverAnswers()) {
      return;
    }
    if (method.kind().equals("fail") || method.kind().equals("halfway")) {
      if (method.streamsResponses()) {
        responses.onNext(message);
      }
      write(method, method.status().getCode());
      responses.onError(method.status().asRuntimeException());
      return;
    }
    for (int i = method.streamsResponses() ? method.number() % 5 : 1; i > 0; i--) {
      responses.onNext(message);
    }
    write(method, Status.Code.OK);
    responses.onCompleted();
  }

  private void heed(Method method, StreamObserver<byte[]> responses) {
    ((ServerCallStreamObserver<byte[]>) responses)
        .setOnCancelHandler(() -> write(method, Status.Code.CANCELLED));
  }

  private void unary(Method method, StreamObserver<byte[]> responses) {
    heed(method, responses);
    answer(method, responses);
  }

  private StreamObserver<byte[]> streaming(Method method, StreamObserver<byte[]> responses) {
    heed(method, responses);
    return new StreamObserver<>() {
      @Override
      public void onNext(byte[] message) {}

      @Override
      public void onError(Throwable error) {}

      @Override
      public void onCompleted() {
        answer(method, responses);
      }
    };
  }

  private ServerCallHandler<byte[], byte[]> handler(Method method) {
    return switch (method.descriptor().getType()) {
      case UNARY -> asyncUnaryCall((request, responses) -> unary(method, responses));
      case SERVER_STREAMING -> asyncServerStreamingCall((request, responses) -> unary(method, responses));
      case CLIENT_STREAMING -> asyncClientStreamingCall(responses -> streaming(method, responses));
      default -> asyncBidiStreamingCall(responses -> streaming(method, responses));
    };
  }

  private void serve(int port) throws IOException, InterruptedException {
    HandlerRegistry registry =
        new HandlerRegistry() {
          @Override
          public ServerMethodDefinition<?, ?> lookupMethod(String name, String authority) {
            Method method = Method.of(name);
            return ServerMethodDefinition.create(method.descriptor(), handler(method));
          }
        };
    NettyServerBuilder.forAddress(
            new InetSocketAddress("127.0.0.1", port), InsecureServerCredentials.create())
        .fallbackHandlerRegistry(registry)
        .build()
        .start()
        .awaitTermination();
  }

  private void call(ManagedChannel channel, Method method) throws InterruptedException {
    CountDownLatch over = new CountDownLatch(1);
    long seconds = method.kind().equals("slow") ? 4 : 60;
    CallOptions options = CallOptions.DEFAULT.withDeadlineAfter(seconds, TimeUnit.SECONDS);
    ClientCall<byte[], byte[]> call = channel.newCall(method.descriptor(), options);
    call.start(
        new ClientCall.Listener<>() {
          @Override
          public void onMessage(byte[] message) {
            call.request(1);
          }

          @Override
          public void onClose(Status status, Metadata trailers) {
            write(method, status.getCode());
            over.countDown();
          }
        },
        new Metadata());
    call.request(2);
    for (int i = method.streamsRequests() ? method.number() % 5 : 1; i > 0; i--) {
      call.sendMessage(message('q', method.number()));
    }
    call.halfClose();
    if (method.kind().equals("cancel") && !over.await(100, TimeUnit.MILLISECONDS)) {
      call.cancel("as asked", null);
    }
    over.await();
  }

  private void ask(int port, int count, int concurrency, List<String> kinds) throws InterruptedException {
    ManagedChannel channel =
        NettyChannelBuilder.forAddress(
                new InetSocketAddress("127.0.0.1", port), InsecureChannelCredentials.create())
            .build();
    while (channel.getState(true) != ConnectivityState.READY) {
      Thread.sleep(20);
    }
    ExecutorService workers = Executors.newFixedThreadPool(concurrency);
    for (int i = 0; i < count; i++) {
      String kind = kinds.get(i % kinds.size());
      Method method = new Method("shop.Cart/" + kind + "-" + i, kind, i);
      workers.submit(
          () -> {
            call(channel, method);
            return null;
          });
    }
    workers.shutdown();
    workers.awaitTermination(2, TimeUnit.MINUTES);
    Thread.sleep(200);
    channel.shutdown().awaitTermination(5, TimeUnit.SECONDS);
  }

  public static void main(String[] arguments) throws Exception {
    List<String> words = List.of(arguments);
    Peer peer = new Peer(words.get(2));
    int port = Integer.parseInt(words.get(1));
    if (words.get(0).equals("server")) {
      peer.serve(port);
    } else {
      List<String> kinds = words.size() > 5 ? words.subList(5, words.size()) : KINDS;
      peer.ask(port, Integer.parseInt(words.get(3)), Integer.parseInt(words.get(4)), kinds);
    }
  }
}
