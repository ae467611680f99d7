%% What Erlang does in the same workloads: an agent that runs the functions below, as `bench.stage` tells it to.
%% An order is a term {Function, Arguments} on standard input; the answer a line of JSON after "> ".
-module(bench).
-behaviour(gen_server).
-compile([export_all, nowarn_export_all]).

start() -> spawn(fun() -> {_, Ref} = spawn_monitor(fun loop/0), receive {'DOWN', Ref, _, _, _} -> erlang:halt(1) end end).

loop() ->
    case io:read('') of
        {ok, {Function, Arguments}} ->
            try apply(?MODULE, Function, Arguments) of
                Value -> io:format("> ~ts~n", [json(Value)])
            catch Class:Reason:Trace -> io:format("! ~0p~n", [{Class, Reason, Trace}])
            end,
            loop();
        _ -> erlang:halt(0, [{flush, false}])
    end.

json(Number) when is_number(Number) -> io_lib:format("~w", [Number]);
json(Word) when is_atom(Word) -> ["\"", atom_to_list(Word), "\""];
json([{_, _} | _] = Pairs) -> ["{", lists:join(",", [[json(Key), ":", json(Value)] || {Key, Value} <- Pairs]), "}"];
json(List) -> ["[", lists:join(",", [json(Element) || Element <- List]), "]"].

%% --- what all need ---

ready() -> {ok, _} = pg:start(bench), register(probe, spawn(fun probe/0)), ok.

os_pid() -> list_to_integer(os:getpid()).

connect(Nodes) ->
    [true = net_kernel:connect_node(Node) || Node <- Nodes],
    until(fun() -> length(nodes()) >= length(Nodes) end),
    global:sync(),
    ok.

now_s() -> os:system_time(nanosecond) / 1.0e9.

seconds(Work) ->
    Start = erlang:monotonic_time(nanosecond),
    Work(),
    (erlang:monotonic_time(nanosecond) - Start) / 1.0e9.

until(Condition) ->
    case Condition() of
        true -> ok;
        false -> receive after 1 -> until(Condition) end
    end.

%% Says when the tables of this node have the size that somebody waits for.
probe() ->
    receive {From, Table, Size} -> until_size(Table, Size), From ! {probed, node()}, probe() end.

until_size(Table, Size) -> until(fun() -> ets:info(Table, size) =:= Size end).

%% The time (system, seconds) at which the table has this size.
when_size(Table, Size) -> until_size(Table, Size), now_s().

everywhere(Nodes, Table, Size) ->
    [{probe, Node} ! {self(), Table, Size} || Node <- [node() | Nodes]],
    [receive {probed, Node} -> ok end || Node <- [node() | Nodes]].

percentile(Times, Part) ->
    Sorted = lists:sort(Times),
    lists:nth(max(1, round(Part * length(Sorted))), Sorted).

idle() -> receive stop -> ok end.

%% Processes that wait to be stopped; they outlive the order.
idlers(Count) -> [spawn(fun idle/0) || _ <- lists:seq(1, Count)].

%% --- lookups ---

lookup(Count) ->
    Pid = spawn(fun idle/0),
    yes = global:register_name(looked_up, Pid),
    ets:new(looked_up, [named_table, public, {read_concurrency, true}]),
    ets:insert(looked_up, {looked_up, Pid}),
    Global = seconds(fun() -> repeat(Count, fun() -> global:whereis_name(looked_up) end) end),
    Ets = seconds(fun() -> repeat(Count, fun() -> ets:lookup(looked_up, looked_up) end) end),
    ets:delete(looked_up),
    Pid ! stop,
    until(fun() -> global:whereis_name(looked_up) =:= undefined end),
    [{global, Global / Count}, {ets, Ets / Count}].

repeat(0, _) -> ok;
repeat(Count, Work) -> Work(), repeat(Count - 1, Work).

%% --- names ---

%% Registers so many names, by so many callers at once, and takes them back.
global_register(Count, Callers) ->
    Pid = spawn(fun idle/0),
    Self = self(),
    Each = Count div Callers,
    Seconds = seconds(fun() ->
        [spawn_link(fun() -> Self ! {times, global_register_some(Caller, Each, Pid)} end)
         || Caller <- lists:seq(1, Callers)],
        put(times, lists:append([receive {times, Times} -> Times end || _ <- lists:seq(1, Callers)]))
    end),
    [global:unregister_name({Caller, I}) || Caller <- lists:seq(1, Callers), I <- lists:seq(1, Each)],
    Pid ! stop,
    [{rate, Each * Callers / Seconds}, {p50, percentile(get(times), 0.5)}].

global_register_some(Caller, Count, Pid) ->
    [seconds(fun() -> yes = global:register_name({Caller, I}, Pid) end) || I <- lists:seq(1, Count)].

%% Names for one process, of a node that may be alone.
global_hold(Count) ->
    Pid = spawn(fun idle/0),
    [yes = global:register_name({held, I}, Pid) || I <- lists:seq(1, Count)],
    ok.

global_join(Nodes, Count) ->
    seconds(fun() -> [net_kernel:connect_node(Node) || Node <- Nodes], until_size(global_names, Count) end).

pg_hold(Count, First) ->
    Self = self(),
    spawn(fun() -> [ok = pg:join(bench, I, self()) || I <- lists:seq(First, First + Count - 1)], Self ! held, idle() end),
    receive held -> ok end.

%% Joins so many groups, until all nodes show them; then lets them go.
pg_join(Nodes, Count) ->
    Self = self(),
    Seconds = seconds(fun() ->
        spawn(fun() ->
            [ok = pg:join(bench, I, self()) || I <- lists:seq(1, Count)],
            Self ! {joined, self()},
            idle()
        end),
        receive {joined, Pid} -> put(holder, Pid) end,
        everywhere(Nodes, bench, Count)
    end),
    get(holder) ! stop,
    everywhere(Nodes, bench, 0),
    Count / Seconds.

%% A node that knows nobody yet joins those that hold so many groups.
pg_arrive(Nodes, Count) ->
    until(fun() -> is_alone(Nodes) end),
    seconds(fun() -> [net_kernel:connect_node(Node) || Node <- Nodes], until_size(bench, Count) end).

pg_leave(Nodes) -> [erlang:disconnect_node(Node) || Node <- Nodes], until_size(bench, 0), ok.

%% Who still had something to say to it when it left may have connected anew.
is_alone(Nodes) ->
    (nodes() =:= [] andalso ets:info(bench, size) =:= 0) orelse
        begin [erlang:disconnect_node(Node) || Node <- Nodes], false end.

%% Owners of one group each exit; until nobody shows any.
pg_exits(Nodes, Count) ->
    Owners = [spawn(fun() -> ok = pg:join(bench, I, self()), idle() end) || I <- lists:seq(1, Count)],
    everywhere(Nodes, bench, Count),
    Seconds = seconds(fun() -> [Owner ! stop || Owner <- Owners], everywhere(Nodes, bench, 0) end),
    Count / Seconds.

%% --- messages within a node ---

counter(Seen) ->
    receive
        {count, From} -> From ! {counted, Seen}, counter(0);
        stop -> ok;
        _ -> counter(Seen + 1)
    end.

local_cast(Count) ->
    Pid = spawn(fun() -> counter(0) end),
    Rate = Count / seconds(fun() -> cast_all(Pid, Count, hello) end),
    Pid ! stop,
    Rate.

cast_all(Pid, Count, Message) ->
    repeat(Count, fun() -> Pid ! Message end),
    Pid ! {count, self()},
    receive {counted, Count} -> ok end.

init(State) -> {ok, State}.
handle_call({size, Blob}, _, State) -> {reply, byte_size(Blob), State};
handle_call(Request, _, State) -> {reply, Request, State}.
handle_cast(_, State) -> {noreply, State}.

local_call(Count) ->
    {ok, Server} = gen_server:start(?MODULE, none, []),
    Each = seconds(fun() -> repeat(Count, fun() -> gen_server:call(Server, 1) end) end) / Count,
    gen_server:stop(Server),
    Each.

local_spawn(Count) ->
    Self = self(),
    seconds(fun() ->
        repeat(Count, fun() -> spawn(fun() -> Self ! ended end) end),
        repeat(Count, fun() -> receive ended -> ok end end)
    end) / Count.

%% --- messages between nodes ---

serve() ->
    {ok, _} = gen_server:start({local, echo}, ?MODULE, none, []),
    {ok, _} = gen_server:start({local, sizer}, ?MODULE, none, []),
    register(counter, spawn(fun() -> counter(0) end)),
    ok.

one_way(Node, Count, Size) ->
    Pid = rpc:call(Node, erlang, whereis, [counter]),
    Body = binary:copy(<<0>>, Size),
    Count / seconds(fun() -> cast_all(Pid, Count, Body) end).

call_times(Node, Count) ->
    Pid = rpc:call(Node, erlang, whereis, [echo]),
    Times = [seconds(fun() -> gen_server:call(Pid, 1) end) || _ <- lists:seq(1, Count)],
    [{p50, percentile(Times, 0.5)}, {p99, percentile(Times, 0.99)}].

call_rate(Node, Count, Callers) ->
    Pid = rpc:call(Node, erlang, whereis, [echo]),
    Self = self(),
    Each = Count div Callers,
    Each * Callers / seconds(fun() ->
        [spawn_link(fun() -> repeat(Each, fun() -> gen_server:call(Pid, 1) end), Self ! done end)
         || _ <- lists:seq(1, Callers)],
        repeat(Callers, fun() -> receive done -> ok end end)
    end).

%% Large messages, each answered with its size; then the same with small calls meanwhile.
large(Node, Size, Count) ->
    Self = self(),
    Body = binary:copy(<<0>>, Size),
    All = fun() -> repeat(Count, fun() -> Size = gen_server:call({sizer, Node}, {size, Body}, 60000) end) end,
    Each = seconds(All) / Count,
    Small = spawn_link(fun() -> small_calls(Node, Self, []) end),
    All(),
    Small ! stop,
    receive {times, Times} -> [{each, Each}, {p99_small, percentile(Times, 0.99)}] end.

small_calls(Node, From, Times) ->
    Time = seconds(fun() -> gen_server:call({echo, Node}, 1, 60000) end),
    receive stop -> From ! {times, [Time | Times]} after 1 -> small_calls(Node, From, [Time | Times]) end.

greet(Parent) -> Parent ! hello.

remote_spawn(Node, Count) ->
    Self = self(),
    Count / seconds(fun() ->
        repeat(Count, fun() -> spawn(Node, ?MODULE, greet, [Self]), receive hello -> ok end end)
    end).
